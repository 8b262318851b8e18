"""Would the tests of the kernels notice a mistake? Kernels with one put in: a barrier fewer, an index off by one."""
import pytest
import torch

from tests.torch_utils.ops import host_kernels
from torch_utils.ops import bias_act, upfirdn2d
from torch_utils.ops.backend import cache, choice
from torch_utils.ops.backend.errors import BackendError

TOLERANCE = 1e-6  # of float32, as in test_kernels_host.py

MUTATIONS = {  # name → file, text, what stands there instead
    "no barrier before the filter is read": (
        "upfirdn2d.cuh", "threadIdx.x % 4);\n    __syncthreads();", "threadIdx.x % 4);"),
    "no barrier before rows are overwritten": (
        "upfirdn2d.cuh", "__syncthreads();  // nobody needs the rows that are overwritten", ""),
    "no barrier after rows are read": (
        "upfirdn2d.cuh", "corner_x, known);\n            __syncthreads();", "corner_x, known);"),
    "a barrier that one thread misses": (
        "upfirdn2d.cuh", "corner_x, known);\n            __syncthreads();",
        "corner_x, known);\n            if (threadIdx.x != 7) __syncthreads();"),
    "the neighbour's tap": (
        "upfirdn2d.cuh", "sum[j] += v[k] * taps[ky * 4 + k];", "sum[j] += v[k] * taps[ky * 4 + (k ^ 1)];"),
    "the ring turns by a row too many": (
        "upfirdn2d.cuh", "base = (base + S::STEP) % S::IN_H", "base = (base + S::STEP + 1) % S::IN_H"),
    "a row of the window is taken for known": (
        "upfirdn2d.cuh", "known = S::IN_H - S::STEP", "known = S::IN_H - S::STEP + 1"),
    "a pixel beside the image counts": ("upfirdn2d.cuh", "x0 + column >= 0 && x0", "x0 + column >= -1 && x0"),
    "the corner is rounded towards zero": (
        "upfirdn2d.cuh", "corner_y = (y_begin * S::DOWN - p.pad_y) >> shift",
        "corner_y = (y_begin * S::DOWN - p.pad_y) / (1 << shift)"),
    "the phase ignores the padding": ("upfirdn2d.cuh", "phase_x = (ox - p.pad_x) & 1", "phase_x = ox & 1"),
    "a neighbour's column": (
        "upfirdn2d.cuh", ": lane / S::CB;\n    A taps", ": (lane / S::CB ^ 1);\n    A taps"),
    "general: a tap too far": ("upfirdn2d.cuh", "w.tap = skip +", "w.tap = 1 + skip +"),
    "general: the last sample is left out": (
        "upfirdn2d.cuh", "w.last > size - 1) w.last = size - 1", "w.last > size - 2) w.last = size - 2"),
    "general: the filter is not turned": ("upfirdn2d.cuh", "p.flip ? kx : p.fw - 1 - kx", "kx"),
    "the bias of the next channel": ("bias_act.cuh", "(p.b) + i / I(p.step_b)", "(p.b) + (i + 1) / I(p.step_b)"),
    "one bias for a pack": ("bias_act.cuh", "read(b + (b_varies ? k : 0))", "read(b)"),
    "a clamped gradient passes": ("bias_act.cuh", "size >= s.stored_clamp", "size > s.stored_clamp"),
    "the rest of the elements is left out": ("bias_act.cuh", "begin = packs * Pack<T>::SIZE", "begin = numel"),
}  # fmt: skip


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def error() -> float:
    """The largest relative error of both operations over a few calls, as the registered operations compute them now."""
    errors = []
    for shape in ([1, 2, 70, 20], [1, 9, 21, 150]):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = randn(*shape).to(memory_format=layout)
            for up, down in ((1, 1), (1, 2), (2, 1), (3, 2)):
                f = randn(4, 4, seed=len(errors))  # another one each time: shared memory keeps the last
                options = dict(up=up, down=down, padding=[1, 2, 3, 2], gain=1.5)
                expected = upfirdn2d.upfirdn2d(x.double(), f, **options, impl="ref")
                result = torch.ops.sg2.upfirdn2d(x, f, [up, up], [down, down], [1, 2, 3, 2], False, 1.5)
                size = upfirdn2d.upfirdn2d(x.double().abs(), f.abs(), **options, impl="ref").max()
                errors.append(((result - expected).abs().max() / size).item())
    for shape, has_b in (([3, 7, 5], True), ([3, 16], True), ([3, 7], False)):  # singly; in packs; both
        x, b, dy = randn(*shape), randn(shape[1], seed=1) * has_b, randn(*shape, seed=2)
        y = torch.ops.sg2.bias_act(x, b if has_b else None, 1, "lrelu", 0.2, 1.4, 0.5)
        x64 = x.double().requires_grad_()
        expected = bias_act.bias_act(x64, b.double(), act="lrelu", gain=1.4, clamp=0.5, impl="ref")
        dx = torch.ops.sg2.bias_act_grad(dy, y, None, 1, "lrelu", 0.2, 1.4, 0.5)
        errors.append((y - expected).abs().max().item())
        errors.append((dx - torch.autograd.grad(expected, x64, dy.double())[0]).abs().max().item())
    return float(torch.tensor(errors).nan_to_num(nan=torch.inf).max())


def use(library: host_kernels.HostLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    library.seed(0)
    monkeypatch.setitem(choice._chosen, torch.device("cpu"), library)


def test_without_a_mistake(host_library, monkeypatch) -> None:
    use(host_library, monkeypatch)
    assert error() <= TOLERANCE


@pytest.mark.skipif(host_kernels.COMPILER is None, reason="needs a host compiler (g++)")
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mistake_is_noticed(name: str, tmp_path, monkeypatch) -> None:
    file, text, instead = MUTATIONS[name]
    source = cache.sources()[file]
    assert source.count(text) == 1
    library = host_kernels.build_library(  # without optimisation: compiled in two thirds of the time
        tmp_path / "kernels.so", ("-O0",), kernels=host_kernels.of_types("f32"),
        sources={file: source.replace(text, instead)},
    )
    use(library, monkeypatch)
    try:
        assert error() > 1000 * TOLERANCE
    except BackendError as message:
        assert "did not reach the barrier" in str(message)  # noqa: PT017 (either of the two will do)
