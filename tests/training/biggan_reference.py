"""BigGAN's formulas spelled out on dictionaries of tensors, without modules: what the networks are held against.

Every function takes the tensors by name and returns the buffers that a pass in training mode would store.
"""
from collections.abc import Mapping

import torch

Tensor = torch.Tensor


class Pass:
    """One pass over a network's tensors, in training or eval mode; `stored` collects the buffers it would change."""

    def __init__(self, tensors: Mapping[str, Tensor], training: bool, sn_eps: float, bn_eps: float = 1e-5) -> None:
        self.tensors = tensors
        self.training = training
        self.sn_eps = sn_eps
        self.bn_eps = bn_eps
        self.stored: dict[str, Tensor] = {}

    def weight(self, name: str) -> Tensor:
        """The weight over its singular value, from one power iteration that starts at u0."""
        w = self.tensors[f"{name}.weight"]
        if f"{name}.u0" not in self.tensors:
            return w
        rows = w.reshape(len(w), -1)
        v = rows.T @ self.tensors[f"{name}.u0"][0]
        v = v / max(v.norm(), self.sn_eps)
        u = rows @ v
        u = u / max(u.norm(), self.sn_eps)
        sigma = u @ rows @ v
        if self.training:
            self.stored |= {f"{name}.u0": u[None], f"{name}.sv0": sigma[None]}
        return w / sigma

    def conv(self, name: str, x: Tensor) -> Tensor:
        w = self.weight(name)
        k = w.shape[-1]
        columns = torch.nn.functional.unfold(x, k, padding=k // 2)
        y = w.reshape(len(w), -1) @ columns
        if f"{name}.bias" in self.tensors:
            y = y + self.tensors[f"{name}.bias"][:, None]
        return y.reshape(len(x), len(w), *x.shape[2:])

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weight(name).T + self.tensors.get(f"{name}.bias", 0)

    def standardize(self, name: str, x: Tensor, eps: float) -> Tensor:
        mean, var = self.tensors[f"{name}.stored_mean"], self.tensors[f"{name}.stored_var"]
        if self.training:
            per_channel = x.transpose(0, 1).flatten(1)
            count = per_channel.shape[1]
            batch_mean = per_channel.sum(1) / count
            squares = ((per_channel - batch_mean[:, None]) ** 2).sum(1)
            self.stored[f"{name}.stored_mean"] = 0.9 * mean + 0.1 * batch_mean
            self.stored[f"{name}.stored_var"] = 0.9 * var + 0.1 * squares / (count - 1)
            mean, var = batch_mean, squares / count
        return (x - mean[:, None, None]) / torch.sqrt(var + eps)[:, None, None]

    def conditional_norm(self, name: str, x: Tensor, y: Tensor) -> Tensor:
        """y: integer labels, or conditioning vectors."""
        if y.ndim == 1:
            gain, bias = self.tensors[f"{name}.gain.weight"][y], self.tensors[f"{name}.bias.weight"][y]
        else:
            gain, bias = self.linear(f"{name}.gain", y), self.linear(f"{name}.bias", y)
        return self.standardize(name, x, self.bn_eps) * (gain + 1)[..., None, None] + bias[..., None, None]

    def attention(self, name: str, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        theta = self.conv(f"{name}.theta", x).reshape(n, -1, h * w)
        phi = max2(self.conv(f"{name}.phi", x)).reshape(n, -1, h * w // 4)
        g = max2(self.conv(f"{name}.g", x)).reshape(n, -1, h * w // 4)
        scores = torch.einsum("ncq,nck->nqk", theta, phi).exp()
        result = torch.einsum("nqk,nck->ncq", scores / scores.sum(2, keepdim=True), g)
        return x + self.tensors[f"{name}.gamma"] * self.conv(f"{name}.o", result.reshape(n, -1, h, w))


def relu(x: Tensor) -> Tensor:
    return x * (x > 0)


def up2(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def _quads(x: Tensor) -> Tensor:
    return torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])


def mean2(x: Tensor) -> Tensor:
    return _quads(x).mean(0)


def max2(x: Tensor) -> Tensor:
    return _quads(x).amax(0)


def generator(run: Pass, z: Tensor, labels: Tensor, num_stages: int, hier: bool, depth: int = 0) -> Tensor:
    """Images; depth is 0 for BigGAN."""
    shared = "shared.weight" in run.tensors
    y = run.tensors["shared.weight"][labels] if shared else labels
    if depth:
        y = torch.cat([y, z], 1)
        first, conditions = y, [y] * num_stages
    elif hier:
        pieces = z.chunk(num_stages + 1, 1)
        first, conditions = pieces[0], [torch.cat([y, piece], 1) for piece in pieces[1:]]
    else:
        first, conditions = z, [y] * num_stages
    x = run.linear("linear", first)
    x = x.reshape(len(z), x.shape[1] // 16, 4, 4)
    for stage, y in enumerate(conditions):
        if depth:
            for i in range(stage * depth, (stage + 1) * depth):
                x = _deep_generator_block(run, f"blocks.{i}.0", x, y, up=i == (stage + 1) * depth - 1)
        else:
            x = _generator_block(run, f"blocks.{stage}.0", x, y)
        attention = f"blocks.{(stage + 1) * max(depth, 1) - 1}.1"
        if f"{attention}.gamma" in run.tensors:
            x = run.attention(attention, x)
    x = run.standardize("output_layer.0", x, 1e-5)
    gain, bias = (run.tensors[f"output_layer.0.{part}"][:, None, None] for part in ("gain", "bias"))
    return torch.tanh(run.conv("output_layer.2", relu(x * gain + bias)))


def _generator_block(run: Pass, name: str, x: Tensor, y: Tensor) -> Tensor:
    h = run.conv(f"{name}.conv1", up2(relu(run.conditional_norm(f"{name}.bn1", x, y))))
    h = run.conv(f"{name}.conv2", relu(run.conditional_norm(f"{name}.bn2", h, y)))
    return h + run.conv(f"{name}.conv_sc", up2(x))


def _deep_generator_block(run: Pass, name: str, x: Tensor, y: Tensor, up: bool) -> Tensor:
    h = x
    for i in (1, 2, 3, 4):
        h = relu(run.conditional_norm(f"{name}.bn{i}", h, y))
        if i == 2 and up:
            h, x = up2(h), up2(x)
        h = run.conv(f"{name}.conv{i}", h)
    return h + x[:, : h.shape[1]]


def discriminator(run: Pass, img: Tensor, labels: Tensor, down: list[bool], depth: int = 0) -> Tensor:
    """Scores; `down` tells which stages halve the resolution."""
    x = run.conv("input_conv", img) if depth else img
    for stage, halve in enumerate(down):
        for i in range(max(depth, 1)):
            if depth:
                x = _deep_discriminator_block(run, f"blocks.{stage}.{i}", x, halve and i == 0)
            else:
                x = _discriminator_block(run, f"blocks.{stage}.0", x, halve, first=stage == 0)
        attention = f"blocks.{stage}.{max(depth, 1)}"
        if f"{attention}.gamma" in run.tensors:
            x = run.attention(attention, x)
    h = relu(x).sum((2, 3))
    return run.linear("linear", h) + (run.weight("embed")[labels] * h).sum(1)[:, None]


def _discriminator_block(run: Pass, name: str, x: Tensor, halve: bool, first: bool) -> Tensor:
    pool = mean2 if halve else lambda t: t
    h = run.conv(f"{name}.conv1", x if first else relu(x))
    h = pool(run.conv(f"{name}.conv2", relu(h)))
    if first:
        return h + run.conv(f"{name}.conv_sc", pool(x))
    return h + (pool(run.conv(f"{name}.conv_sc", x)) if f"{name}.conv_sc.weight" in run.tensors else x)


def _deep_discriminator_block(run: Pass, name: str, x: Tensor, halve: bool) -> Tensor:
    h = x
    for i in (1, 2, 3):
        h = run.conv(f"{name}.conv{i}", relu(h))
    h = relu(h)
    if halve:
        h, x = mean2(h), mean2(x)
    if f"{name}.conv_sc.weight" in run.tensors:
        x = torch.cat([x, run.conv(f"{name}.conv_sc", x)], 1)
    return run.conv(f"{name}.conv4", h) + x
