"""Ridge least squares around present weights, with and without the demodulation of StyleGAN2."""
import dataclasses

import torch

_BLOCKS, _MIN_BLOCK = 8, 64  # of a Gram matrix, of which little more than half is multiplied
_CHUNK = 4096  # rows that are multiplied at once; sums over chunks are in float64
SCALE_RANGE = (0.5, 2.0)  # of a channel's scale; beyond it the fit explains nothing of the channel


@dataclasses.dataclass(frozen=True)
class Fit:
    """Weights that were fitted.

    Attributes:
        weight: [O, K] float64.
        bias: [O] float64, or None.
        scale: factor by which the targets exceed the outputs that the weights give, per output channel, [O] float64.
        before, after: squared error over the targets' variance, with the weights as they were, and with these.
    """
    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: torch.Tensor
    before: float
    after: float


def gram(a: torch.Tensor) -> torch.Tensor:
    """aᵀ a of a matrix a [R, K]: [K, K]. What lies above the diagonal blocks is copied from below them."""
    size = a.shape[1]
    step = max(_MIN_BLOCK, -(-size // _BLOCKS))
    result = a.new_empty([size, size])
    for first in range(0, size, step):
        block = a[:, first:].t() @ a[:, first : first + step]
        result[first:, first : first + step] = block
        result[first : first + step, first + step :] = block[step:].t()
    return result


def _moment(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Mean over rows of the products of a [R, A] and b [R, B]: float64 [A, B]."""
    total = torch.zeros([a.shape[1], b.shape[1]], dtype=torch.float64, device=a.device)
    for first, second in zip(a.split(_CHUNK), b.split(_CHUNK)):
        total += (gram(first) if a is b else first.t() @ second).double()
    return total / len(a)


def _relative_error(residual: torch.Tensor, target: torch.Tensor) -> float:
    centred = target - target.mean(dim=0)
    return float(residual.double().square().mean() / centred.double().square().mean().clamp_min(1e-30))


def _factorise(gram: torch.Tensor, ridge: torch.Tensor) -> torch.Tensor:
    """Cholesky factor of a Gram matrix with a ridge, which may be as small as rounding."""
    floor = 1e-9 * gram.diagonal().mean().clamp_min(1e-30)
    return torch.linalg.cholesky(gram + torch.diag(ridge + floor))


def linear(
    rows: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, ridge: torch.Tensor
) -> Fit:
    """Fits targets ≈ rows · weightᵀ + bias; the ridge draws the weights to the present ones, the bias is free.

    Args:
        rows: [R, K].
        targets: [R, O].
        weight: present weights, [O, K].
        bias: present bias [O], or None for a layer without.
        ridge: added to the diagonal of the mean Gram matrix, [K].
    """
    weight = weight.double()
    parameters, columns = weight, rows
    if bias is not None:
        parameters = torch.cat([weight, bias.double()[:, None]], dim=1)
        columns = torch.cat([rows, rows.new_ones([len(rows), 1])], dim=1)
        ridge = torch.cat([ridge, ridge.new_zeros([1])])
    residual = targets - columns @ parameters.to(rows.dtype).t()
    before = _relative_error(residual, targets)
    factor = _factorise(_moment(columns, columns), ridge.double())
    parameters = parameters + torch.cholesky_solve(_moment(columns, residual), factor).t()
    after = _relative_error(targets - columns @ parameters.to(rows.dtype).t(), targets)
    scale = torch.ones([len(weight)], dtype=torch.float64, device=rows.device)
    if bias is None:
        return Fit(parameters, None, scale, before, after)
    return Fit(parameters[:, :-1], parameters[:, -1], scale, before, after)


def demodulated(
    rows: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    ridge: float,
    iterations: int,
) -> Fit:
    """Fits targets ≈ (rows · weightᵀ) · d(weight), where d is 1 / the norm of the weights modulated by each style.

    Alternates between d for the present weights, and ridge least squares of targets / d around them. The norm of a row
    of weights is free, because d cancels it, and stays as it was. The ridge of an input channel is `ridge` times the
    mean square of its style: with less of it, directions are found by cancellation whose outputs are too small, because
    d takes the inputs for uncorrelated and of unit variance.

    Args:
        rows: [N, P, I·T]: N styles, P positions of each, T taps of each of I input channels.
        targets: [N, P, O].
        weight: present weights, [O, I·T].
        styles: [N, I].
        ridge: see above.
        iterations: how often to alternate.

    Returns:
        The fit; targets ≈ outputs · scale.
    """
    num, places, size = rows.shape
    taps = size // styles.shape[1]
    energy_of_styles = styles.double().square()
    weight = weight.double()
    norms = weight.norm(dim=1, keepdim=True)
    norms = torch.where(norms > 0, norms, torch.ones_like(norms))

    def demodulation(w: torch.Tensor) -> torch.Tensor:
        energy = w.square().reshape(len(w), -1, taps).sum(dim=2)  # [O, I]
        return (energy_of_styles @ energy.t() + 1e-8).rsqrt()  # [N, O]

    flat = rows.flatten(0, 1)

    def outputs(w: torch.Tensor) -> torch.Tensor:
        return (flat @ w.to(flat.dtype).t()).reshape(num, places, -1) * demodulation(w).to(flat.dtype)[:, None]

    before = _relative_error((targets - outputs(weight)).flatten(0, 1), targets.flatten(0, 1))
    penalty = ridge * energy_of_styles.mean(dim=0).repeat_interleave(taps)
    factor = _factorise(_moment(flat, flat), penalty)
    for _ in range(iterations):
        wanted = (targets / demodulation(weight).to(flat.dtype)[:, None]).flatten(0, 1)
        residual = wanted - flat @ weight.to(flat.dtype).t()
        weight = weight + torch.cholesky_solve(_moment(flat, residual), factor).t()
        length = weight.norm(dim=1, keepdim=True)
        weight = torch.where(length > 0, weight / length.clamp_min(1e-30) * norms, weight)
    fitted = outputs(weight)
    dims = [0, 1]
    energy = fitted.double().square().sum(dim=dims)
    scale = (fitted.double() * targets.double()).sum(dim=dims) / energy.clamp_min(1e-30)
    scale = torch.where(energy > 1e-30, scale.clamp(*SCALE_RANGE), torch.ones_like(scale))
    after = _relative_error((targets - fitted * scale.to(fitted.dtype)).flatten(0, 1), targets.flatten(0, 1))
    return Fit(weight, None, scale, before, after)
