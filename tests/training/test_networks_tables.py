"""Small networks filled by a formula against tables that the reference implementations gave (torch 1.7.1, CPU).

Every parameter and buffer but the resampling filters holds values of `fill`; so the tables test the arithmetic, the
order of tensors, the number of parameters and the defaults at once.
"""
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.networks import Discriminator, Generator

TABLE_TOLERANCE = 2e-5  # the tables have six decimals, and float32 sums differ between torch versions


def fill(number: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Uniform-looking numbers of mean square one: element i of tensor `number`, float64."""
    index = np.arange(math.prod(shape), dtype=np.float64)
    u = 43758.5453 * np.sin(12.9898 * (index + 1) + 78.233 * (number + 1))
    return torch.from_numpy(math.sqrt(3) * (2 * (u - np.floor(u)) - 1)).reshape(shape)


def filled(network: Any, scales: dict[str, float]) -> Any:
    """Fills all tensors in the order parameters, buffers; `scales` maps parts of names to factors."""
    tensors = [*network.named_parameters(), *network.named_buffers()]
    tensors = [(name, tensor) for name, tensor in tensors if not name.endswith("resample_filter")]
    with torch.no_grad():
        for number, (name, tensor) in enumerate(tensors):
            factor = next((scale for part, scale in scales.items() if part in name), 1.0)
            tensor.copy_(factor * fill(number, tuple(tensor.shape)))
    return network.eval().requires_grad_(False)


def generator(architecture: str, conv_clamp: float | None = None, noise_scale: float = 0.1) -> Any:
    G = Generator(
        z_dim=16,
        c_dim=3,
        w_dim=16,
        img_resolution=16,
        img_channels=3,
        mapping_kwargs={"num_layers": 2, "w_avg_beta": 0.995},
        synthesis_kwargs={
            "channel_base": 256, "channel_max": 32, "num_fp16_res": 0,
            "architecture": architecture, "conv_clamp": conv_clamp,
        },
    )
    return filled(G, {"mapping.fc": 100, "noise_strength": noise_scale})


def discriminator(architecture: str, c_dim: int, group: int | None, conv_clamp: float | None) -> Any:
    D = Discriminator(
        c_dim=c_dim,
        img_resolution=16,
        img_channels=3,
        architecture=architecture,
        channel_base=256,
        channel_max=32,
        num_fp16_res=0,
        conv_clamp=conv_clamp,
        epilogue_kwargs={"mbstd_group_size": group},
    )
    return filled(D, {"mapping.fc": 10})


def assert_near(result: torch.Tensor, expected: list[float], tolerance: float = TABLE_TOLERANCE) -> None:
    reference = torch.tensor(expected, dtype=torch.float64)
    assert result.shape == reference.shape
    assert (result.double() - reference).abs().max() <= tolerance * max(1, float(reference.abs().max()))


LATENTS = fill(2000, (2, 16))
LABELS = torch.eye(3)[:2]


def test_fill() -> None:
    assert_near(fill(0, (4,)), [0.83167823, 0.22307127, -0.15675316, -0.78842697], 1e-7)
    assert_near(fill(2000, (4,)), [0.6796701, 1.48750015, -0.14019497, 1.60519952], 1e-7)


@torch.no_grad()
def test_mapping() -> None:
    G = generator("skip")
    assert G.num_ws == 6
    assert sum(p.numel() for p in G.parameters()) == 40126
    ws = G.mapping(LATENTS, LABELS)
    assert_near(ws[0, 0, :4], [-0.106665, -0.162830, -0.474324, 1.812346])
    assert_near(ws[1, 5, :4], [-0.267796, 0.589775, -0.873028, 2.788547])
    assert_near(torch.stack([ws.mean(), ws.std(correction=0), ws.abs().max()]), [0.368325, 1.129011, 2.857317])
    truncated = G.mapping(LATENTS, LABELS, truncation_psi=0.5, truncation_cutoff=2)
    for index in (0, 1):
        assert_near(truncated[0, index, :4], [-0.487711, -0.488738, -0.104353, 1.404554])
    assert torch.equal(truncated[:, 2:], ws[:, 2:])


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [("resnet", [-0.348082, -0.105583, -0.277275, 0.312660]), ("orig", [3.677565, 1.805851, 5.564804, 3.162430])],
)
@torch.no_grad()
def test_mapping_of_other_architectures(architecture: str, expected: list[float]) -> None:
    assert_near(generator(architecture).mapping(LATENTS, LABELS)[0, 0, :4], expected)


# architecture, conv_clamp, noise mode: mean, deviation, max abs | img[0, 0, 0, 0:4] | img[1, 2, 15, 12:16]
IMAGES = """
skip   None const  1.112033 3.811039  9.204806 |  1.539304  2.037631  2.451174  2.399401 | 1.958596 1.779534 1.602685 1.136576
skip   None none   1.097259 3.803814  9.174582 |  1.620540  1.968380  2.409998  2.332573 | 1.841473 1.807453 1.637980 1.075037
skip   0.5  const  0.393248 0.838872  1.500000 |  0.939453  1.103516  1.138672  1.156250 | 0.514116 0.504964 0.535317 0.537870
skip   0.5  none   0.407587 0.823992  1.500000 |  0.939453  1.103516  1.138672  1.156250 | 0.534268 0.530628 0.563699 0.560176
resnet None const  1.047749 1.096606  4.001757 | -0.633720 -0.542953 -0.435005 -0.359275 | 0.664592 0.667751 0.563132 1.027191
resnet None none   1.035979 1.087151  4.084770 | -0.614442 -0.526602 -0.456347 -0.396599 | 0.604161 0.619466 0.506960 1.028121
resnet 0.5  const  0.219619 0.398040  0.500000 | -0.391600 -0.346677 -0.311863 -0.278914 | 0.5 0.5 0.5 0.5
resnet 0.5  none   0.219228 0.398558  0.500000 | -0.386665 -0.337390 -0.299502 -0.271401 | 0.5 0.5 0.5 0.5
orig   None const  0.279135 6.771792 13.084667 | -5.074279 -5.979601 -6.763438 -7.612753 | 3.733144 4.089209 3.492879 3.346426
orig   None none   0.229246 6.672737 12.838148 | -4.803066 -5.914011 -6.934611 -7.333976 | 3.523472 3.641633 3.388421 3.354782
orig   0.5  const  0.054806 0.313895  0.500000 |  0.368995  0.396965  0.442919  0.355503 | 0.5 0.5 0.5 0.5
orig   0.5  none   0.054840 0.313344  0.500000 |  0.414341  0.410471  0.413725  0.416435 | 0.5 0.5 0.5 0.5
"""  # noqa: E501


@pytest.mark.parametrize("line", IMAGES.strip().splitlines(), ids=lambda line: "-".join(line.split()[:3]))
@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_images(line: str, fused: bool) -> None:
    head, first, second = line.split("|")
    architecture, clamp, noise, *numbers = head.split()
    G = generator(architecture, None if clamp == "None" else float(clamp))
    img = G.synthesis(G.mapping(LATENTS, LABELS), noise_mode=noise, fused_modconv=fused)
    statistics = torch.stack([img.mean(), img.std(correction=0), img.abs().max()])
    assert_near(statistics, [float(number) for number in numbers])
    assert_near(img[0, 0, 0, :4], [float(number) for number in first.split()])
    assert_near(img[1, 2, 15, 12:], [float(number) for number in second.split()])


# architecture, c_dim, group size (0: None and 4), clamp: logits | number of parameters
LOGITS = """
resnet 0 0 None | -2.043925 -1.700951 -1.452334 -1.730575 | 53041
resnet 0 2 None | -2.043101 -1.700298 -1.450622 -1.730679 | 53041
resnet 0 2 0.5  | -0.927168 -0.924278 -0.939328 -0.930263 | 53041
resnet 3 4 None |  0.305037  0.324495  0.302411  0.310819 | 62640
resnet 3 2 None |  0.305108  0.324529  0.302468  0.310885 | 62640
resnet 3 2 0.5  |  0.041250  0.040822  0.041132  0.040516 | 62640
skip   0 0 None |  4.425836  3.792869  3.709600  3.755207 | 51761
skip   0 2 None |  4.426254  3.797194  3.713831  3.758369 | 51761
skip   0 2 0.5  | -0.757028 -0.693882 -0.763922 -0.669171 | 51761
skip   3 4 None | -0.465856 -0.468731 -0.479271 -0.462994 | 61360
skip   3 2 None | -0.465007 -0.467689 -0.478317 -0.461960 | 61360
skip   3 2 0.5  | -0.036807 -0.041415 -0.040988 -0.036860 | 61360
orig   0 0 None |  0.713019  0.689379  0.515933  0.509780 | 51505
orig   0 2 None |  0.714545  0.691765  0.517837  0.512040 | 51505
orig   0 2 0.5  | -0.280224 -0.280542 -0.279664 -0.279650 | 51505
orig   3 4 None |  0.102626  0.109440  0.099851  0.102814 | 61104
orig   3 2 None |  0.102488  0.109367  0.099811  0.102728 | 61104
orig   3 2 0.5  | -0.007760 -0.007765 -0.007722 -0.007737 | 61104
"""


@pytest.mark.parametrize("line", LOGITS.strip().splitlines(), ids=lambda line: "-".join(line.split()[:4]))
@torch.no_grad()
def test_logits(line: str) -> None:
    head, logits, num_parameters = line.split("|")
    architecture, c_dim, group, clamp = head.split()
    img = fill(1000, (4, 3, 16, 16)).float()
    c = F.one_hot(torch.tensor([0, 1, 2, 0]), 3).float() if c_dim != "0" else torch.zeros([4, 0])
    for size in (None, 4) if group == "0" else (int(group),):
        D = discriminator(architecture, int(c_dim), size, None if clamp == "None" else float(clamp))
        assert sum(p.numel() for p in D.parameters()) == int(num_parameters)
        assert_near(D(img, c)[:, 0], [float(logit) for logit in logits.split()])


def test_gradients_of_the_discriminator() -> None:
    D = discriminator("resnet", 0, 2, None).requires_grad_(True)
    img = fill(1000, (4, 3, 16, 16)).float().requires_grad_(True)
    logits = D(img, None)
    (gradient,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    r1 = gradient.square().sum(dim=[1, 2, 3])
    assert_near(r1, [0.0239179, 0.0260968, 0.0279339, 0.0286492], 1e-6)
    loss = (F.softplus(-logits[:, 0]) + 5 * r1).mean()
    assert float(loss.detach()) == pytest.approx(2.0302572, rel=1e-5)
    loss.backward()
    norms = {"b16.fromrgb.weight": 0.10568, "b16.conv1.weight": 0.858978, "b8.skip.weight": 1.05977,
             "b4.fc.weight": 1.83835, "b4.out.bias": 0.847604}
    gradients = {name: p.grad for name, p in D.named_parameters() if p.grad is not None}
    for name, norm in norms.items():
        assert float(gradients[name].norm()) == pytest.approx(norm, rel=1e-4), name
    assert float(gradients["b4.out.bias"].detach()) == pytest.approx(-0.847604, rel=1e-5)
    assert_near(gradients["b16.conv1.weight"].flatten()[:3], [-0.0290782, -0.0291753, -0.0261476], 1e-6)


def test_gradients_of_the_path_length() -> None:
    G = generator("skip", noise_scale=0).train().requires_grad_(True)
    assert_near(G.mapping.w_avg[:4], [-0.868758, -0.814646, 0.265618, 0.996763])
    ws = G.mapping(LATENTS, LABELS)
    assert_near(G.mapping.w_avg[:4], [-0.865350, -0.809505, 0.260921, 1.003280])
    img = G.synthesis(ws)
    noise = fill(3000, tuple(img.shape)).float() / 16
    (jacobian,) = torch.autograd.grad((img * noise).sum(), ws, create_graph=True)
    lengths = jacobian.square().sum(dim=2).mean(dim=1).sqrt()
    assert_near(lengths, [2.738, 1.46896], 1e-5)
    mean = 0.01 * lengths.mean()
    assert float(mean.detach()) == pytest.approx(0.0210348, rel=1e-5)
    penalty = (lengths - mean).square()
    assert_near(penalty, [7.38191, 2.0965])
    (4 * (2 * penalty).mean()).backward()
    norms = {"mapping.fc1.weight": 0.211509, "synthesis.b4.const": 4.34122, "synthesis.b8.conv0.weight": 8.41171,
             "synthesis.b16.conv1.affine.bias": 7.27067, "synthesis.b16.torgb.weight": 14.2739}
    for name, parameter in G.named_parameters():
        if name in norms:
            assert parameter.grad is not None
            assert float(parameter.grad.norm()) == pytest.approx(norms.pop(name), rel=1e-4), name
    assert not norms
