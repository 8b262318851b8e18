"""Single ops against reference numbers (tests/golden/ops.npz) and the small tables of known results."""
import ast

import pytest
import torch

from tests.helpers import golden
from torch_utils.ops import bias_act, conv2d_resample, upfirdn2d

pytestmark = pytest.mark.usefixtures("cpu_path")
DATA = golden("ops")
TOLERANCE = 1e-5  # float32, single op


def tensor(name: str) -> torch.Tensor:
    return torch.from_numpy(DATA[name])


def cases(op: str) -> list[str]:
    return sorted({key.split("/")[1] for key in DATA if key.startswith(op + "/") and key.endswith("/args")}, key=int)


@pytest.mark.parametrize("case", cases("upfirdn2d"))
def test_upfirdn2d(case: str) -> None:
    args = ast.literal_eval(str(DATA[f"upfirdn2d/{case}/args"]))
    y = upfirdn2d.upfirdn2d(tensor("x"), tensor(args.pop("f")), **args)
    torch.testing.assert_close(y, tensor(f"upfirdn2d/{case}/y"), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["filter2d", "upsample2d", "downsample2d"])
def test_wrappers(name: str) -> None:
    y = getattr(upfirdn2d, name)(tensor("x"), tensor("f4"), padding=[1, 0, 2, -1], gain=1.5)
    torch.testing.assert_close(y, tensor(f"{name}/y"), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("variant", range(3))
@pytest.mark.parametrize("act", bias_act.activation_funcs)
def test_bias_act(act: str, variant: int) -> None:
    options = [{}, dict(alpha=0.3, gain=2, clamp=0.5), dict(alpha=0.1, gain=0.7)][variant]
    y = bias_act.bias_act(tensor("x"), tensor("b"), act=act, **options)
    torch.testing.assert_close(y, tensor(f"bias_act/{act}/{variant}"), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", cases("conv2d_resample"))
def test_conv2d_resample(case: str) -> None:
    args = ast.literal_eval(str(DATA[f"conv2d_resample/{case}/args"]))
    f = args.pop("f")
    w = tensor(args.pop("w"))
    y = conv2d_resample.conv2d_resample(tensor("x"), w, tensor(f) if f else None, **args)
    reference = tensor(f"conv2d_resample/{case}/y")
    torch.testing.assert_close(y, reference, atol=TOLERANCE * float(reference.std().clamp_min(1)), rtol=0)


RAMP = torch.arange(16.0).reshape(1, 1, 4, 4)
FILTERS = {
    "F": upfirdn2d.setup_filter([1, 3, 3, 1]),
    "A": upfirdn2d.setup_filter([1, 2, 3, 4]),
    "L": upfirdn2d.setup_filter(list(range(1, 9))),
}


@pytest.mark.parametrize(
    ("op", "f", "options", "row", "expected"),
    [
        ("upsample2d", "F", {}, 0, [0, 0.1875, 0.5625, 0.9375, 1.3125, 1.6875, 2.0625, 1.6875]),
        ("upsample2d", "F", {}, 3, [3.75, 5.25, 5.75, 6.25, 6.75, 7.25, 7.75, 6.0]),
        ("filter2d", "F", {}, 1, [1.359375, 2.734375, 3.8125, 3.9375]),
        ("upsample2d", "A", {}, 0, [0, 0.08, 0.16, 0.4, 0.64, 0.72, 1.12, 0.72]),
        ("upsample2d", "A", {"flip_filter": True}, 0, [0, 0.48, 0.36, 1.2, 0.84, 1.92, 1.32, 0.72]),
        ("filter2d", "A", {}, 1, [0.54, 1.2, 2.2, 2.4]),
        ("upsample2d", "L", {}, 0, [0.185185, 0.314815, 0.444444, 0.654321, 0.864198, 0.851852, 1.037037, 0.833333]),
        ("upfirdn2d", "A", dict(up=3, down=2, padding=[2, 1, -1, 3], gain=2), 1, [0.96, 2.5, 1.74, 1.36, 3.5, 2.34]),
        ("upfirdn2d", "F", dict(up=3, down=2, padding=[2, 1, -1, 3], gain=2), 1,
         [1.125, 0.8125, 1.3125, 1.5, 1.0625, 1.6875]),
        ("upfirdn2d", "L", dict(up=3, down=2, padding=[2, 1, -1, 3], gain=2), 1,
         [1.402778, 2.430556, 2.194445, 1.819445]),
    ],
)
def test_ramp_rows(op: str, f: str, options: dict, row: int, expected: list[float]) -> None:
    y = getattr(upfirdn2d, op)(RAMP, FILTERS[f], **options)
    torch.testing.assert_close(y[0, 0, row], torch.tensor(expected, dtype=torch.float32), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("f", "expected"),
    [("F", [2.734375, 3.9375, 7.546875, 8.75]), ("A", [1.2, 2.4, 4.2, 7.2]),
     ("L", [0.864198, 1.388889, 1.481482, 2.376544])],
)
def test_ramp_downsampled(f: str, expected: list[float]) -> None:
    y = upfirdn2d.downsample2d(RAMP, FILTERS[f])
    torch.testing.assert_close(y.flatten(), torch.tensor(expected), atol=2e-6, rtol=0)


@pytest.mark.parametrize(
    ("up", "down", "flip", "row", "total"),
    [
        (1, 1, True, [198, 303, 348, 225], 4140),
        (1, 1, False, [72, 147, 192, 165], 3360),
        (2, 1, True, [65.3125, 97.3125, 122.375, 144.125, 165.875, 187.625, 183.875, 132.875], 18172.875),
        (2, 1, False, [21.5625, 40.1875, 59.5, 79, 98.5, 118, 125.5, 105.25], 16495.875),
        (1, 2, True, [264.359375, 268.53125], 923.28125),
        (1, 2, False, [252.203125, 310.375], 768.90625),
        (2, 2, True, [183.191406, 263.026367, 304.46875, 247.47168], 4330.59375),
        (3, 2, False, [22.754883, 50.941406, 80.885742, 109.762207, 139.772461, 150.398438], 9333.806396),
    ],
)
def test_ramp_convolved(up: int, down: int, flip: bool, row: list[float], total: float) -> None:
    w = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    y = conv2d_resample.conv2d_resample(RAMP, w, FILTERS["F"], up=up, down=down, padding=1, flip_weight=flip)
    torch.testing.assert_close(y[0, 0, 1], torch.tensor(row, dtype=torch.float32), atol=1e-4, rtol=1e-6)
    assert float(y.sum()) == pytest.approx(total, rel=1e-6)


def test_asymmetric_padding() -> None:
    w = torch.arange(1.0, 10).reshape(1, 1, 3, 3)
    y = conv2d_resample.conv2d_resample(RAMP, w, padding=[0, 1, 2, 0])
    assert y.shape == (1, 1, 4, 3)
    assert y[0, 0, 0].tolist() == [26, 50, 38]


BIAS_ACT_TABLE = {  # act, clamp: values | derivatives at x + b
    ("relu", None): ([0, 0, 0, 0.353553, 1.060660, 3.181980], [0, 0, 0, 1.414214, 1.414214, 1.414214]),
    ("lrelu", None): ([-0.777817, -0.212132, 0, 0.353553, 1.060660, 3.181980],
                      [0.282843, 0.282843, 0.282843, 1.414214, 1.414214, 1.414214]),
    ("lrelu", 1.5): ([-0.777817, -0.212132, 0, 0.353553, 1.060660, 1.5],
                     [0.282843, 0.282843, 0.282843, 1.414214, 1.414214, 0]),
    ("tanh", None): ([-0.991860, -0.635149, 0, 0.244919, 0.635149, 0.978026],
                     [0.016214, 0.596586, 1, 0.940015, 0.596586, 0.043465]),
    ("sigmoid", None): ([0.060087, 0.320821, 0.5, 0.562177, 0.679179, 0.904651],
                        [0.056476, 0.217895, 0.25, 0.246134, 0.217895, 0.086258]),
    ("elu", None): ([-0.936072, -0.527633, 0, 0.25, 0.75, 2.25], [0.063928, 0.472367, 1, 1, 1, 1]),
    ("selu", None): ([-1.645708, -0.927632, 0, 0.262675, 0.788026, 2.364077],
                     [0.112392, 0.830467, 1.758099, 1.050701, 1.050701, 1.050701]),
    ("softplus", None): ([0.061968, 0.386871, 0.693147, 0.825939, 1.136871, 2.350207],
                         [0.060087, 0.320821, 0.5, 0.562177, 0.679179, 0.904651]),
    ("swish", None): ([-0.233682, -0.340282, 0, 0.198759, 0.720378, 2.878580],
                      [-0.134666, 0.222597, 0.707107, 0.882059, 1.191616, 1.553840]),
}


@pytest.mark.parametrize(("act", "clamp"), BIAS_ACT_TABLE)
def test_bias_act_derivatives(act: str, clamp: float | None) -> None:
    x = torch.tensor([[-3, -1, -0.25, 0, 0.5, 2]], requires_grad=True)
    y = bias_act.bias_act(x, torch.full([6], 0.25), act=act, clamp=clamp)
    (dx,) = torch.autograd.grad(y.sum(), x)
    values, derivatives = BIAS_ACT_TABLE[act, clamp]
    torch.testing.assert_close(y.detach()[0], torch.tensor(values, dtype=torch.float32), atol=2e-6, rtol=0)
    torch.testing.assert_close(dx[0], torch.tensor(derivatives, dtype=torch.float32), atol=2e-6, rtol=0)
