"""For a machine with a GPU (`make test-gpu`): the kernels against plain torch in double precision on the CPU."""
import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests import tiny
from torch_utils.ops import bias_act, upfirdn2d
from torch_utils.ops.backend import choice, loading, selftest
from torch_utils.ops.backend.errors import BackendError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DTYPES = {torch.float16: 1e-3, torch.bfloat16: 8e-3, torch.float32: 1e-6, torch.float64: 1e-13}
LAYOUTS = [torch.contiguous_format, torch.channels_last]
# 1e-6 is for sums in the order of the host; a GPU fuses multiplication and addition, which changes the last bit.
SLACK = 2


@pytest.fixture(params=["ninja", "nvrtc"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to get kernels, where they are possible."""
    device = torch.device("cuda", torch.cuda.current_device())
    try:
        loaded = loading.LOADERS[request.param](device.index)
        selftest.run(loaded, device)
    except BackendError as error:
        pytest.skip(f"{request.param}: {error}")
    monkeypatch.setitem(choice._chosen, device, loaded)
    return request.param


def randn(shape, dtype=torch.float64, layout=torch.contiguous_format, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
    return x.to(memory_format=layout) if len(shape) == 4 else x


def assert_near(result: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype, size: float) -> None:
    assert result.is_cuda
    assert result.dtype == dtype
    error = (result.cpu().double() - expected).abs().max().item()
    assert error <= SLACK * DTYPES[dtype] * size, f"off by {error} of {size}"


@pytest.mark.parametrize("layout", LAYOUTS, ids=["planes", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_upfirdn2d(kernels, dtype, layout) -> None:
    shapes = ([1, 1, 1, 1], [2, 17, 33, 41], [1, 3, 9, 300], [2, 32, 257, 129])
    factors = ([1, 1], [2, 1], [1, 2], [3, 2], [4, 4])
    for shape, (up, down), taps in itertools.product(shapes, factors, ((4, 4), (3, 5), (32, 32))):
        x, f = randn(shape, dtype, layout), randn(taps, torch.float32, seed=1)
        options = dict(up=up, down=down, padding=[taps[1], taps[1] - 2, taps[0] - 3, taps[0]], gain=1.5)
        size = upfirdn2d.upfirdn2d(x.double().abs(), f.abs(), **options, impl="ref").max().item()
        result = upfirdn2d.upfirdn2d(x.cuda(), f.cuda(), **options)
        assert_near(result, upfirdn2d.upfirdn2d(x.double(), f, **options, impl="ref"), dtype, size)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["planes", "channels_last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("act", bias_act.activation_funcs)
def test_bias_act(kernels, act, dtype, layout) -> None:
    for shape, clamp in itertools.product(([1, 1, 1, 1], [2, 17, 5, 7], [2, 16, 64, 64]), (None, 0.5)):
        x, b = randn(shape, dtype, layout), randn([shape[1]], dtype, seed=1)
        expected = bias_act.bias_act(x.double(), b.double(), act=act, clamp=clamp, impl="ref")
        result = bias_act.bias_act(x.cuda(), b.cuda(), act=act, clamp=clamp)
        assert_near(result, expected, dtype, max(expected.abs().max().item(), 1))


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_gradients_of_upfirdn2d(kernels, up: int, down: int) -> None:
    x, f = randn([1, 2, 5, 6]).cuda().requires_grad_(), randn([4, 4], torch.float32, seed=1).cuda()

    def resampled(x: torch.Tensor) -> torch.Tensor:
        return upfirdn2d.upfirdn2d(x, f, up=up, down=down, padding=[1, 2, 2, 1])

    assert gradcheck(resampled, x)
    assert gradgradcheck(resampled, x)


@pytest.mark.parametrize("clamp", [None, 0.8])
@pytest.mark.parametrize("act", bias_act.activation_funcs)
def test_gradients_of_bias_act(kernels, act: str, clamp: float | None) -> None:
    x, b = randn([2, 3, 4]).cuda().requires_grad_(), randn([3], seed=1).cuda().requires_grad_()

    def activated(x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return bias_act.bias_act(x, b, act=act, gain=1.3, clamp=clamp)

    assert gradcheck(activated, (x, b))
    assert gradgradcheck(activated, (x, b))


def test_opcheck(kernels) -> None:
    x, f, b = randn([2, 3, 5, 6]).cuda(), randn([4, 4], torch.float32, seed=1).cuda(), randn([3], seed=2).cuda()
    args = ([2, 2], [1, 1], [2, 1, 2, 1], False, 4.0)
    torch.library.opcheck(torch.ops.sg2.upfirdn2d.default, (x.clone().requires_grad_(), f, *args))
    torch.library.opcheck(
        torch.ops.sg2.bias_act.default, (x.clone().requires_grad_(), b.requires_grad_(), 1, "lrelu", 0.2, 1.4, 0.8)
    )


def test_over_two_to_the_31_elements(kernels) -> None:
    shape = [2, 1, 2**15, 2**15 + 1]
    free, _ = torch.cuda.mem_get_info()
    if free < 12 * 2**30:
        pytest.skip("needs 12 GiB of free memory")
    x = torch.ones(shape, dtype=torch.float16, device="cuda")
    y = bias_act.bias_act(x, torch.ones([1], dtype=torch.float16, device="cuda"), act="lrelu", gain=1)
    assert y.sum(dtype=torch.float64).item() == 2 * x.numel()
    del x
    for taps in (4, 3):  # the special kernel, and the general one with 64-bit counters
        f = upfirdn2d.setup_filter([1.0] * taps, device=torch.device("cuda"))
        z = upfirdn2d.filter2d(y, f)
        assert z[:, :, 8:-8, 8:-8].sub_(2).abs().max().item() == 0
        del z


def test_other_streams_and_graphs(kernels) -> None:
    f, x = torch.ones([4, 4], device="cuda"), torch.ones([1, 4, 64, 64], device="cuda")
    expected = upfirdn2d.upsample2d(x, f)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        result = upfirdn2d.upsample2d(x, f)
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(result, expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = upfirdn2d.upsample2d(x, f)
    x.mul_(2)
    graph.replay()
    assert torch.equal(captured, expected * 2)


@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_networks(kernels, architecture: str) -> None:
    """As on the CPU, in single precision; and the gradient of a gradient penalty."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    results = []
    for device in ("cpu", "cuda"):
        G, D = tiny.tiny_generator(architecture).to(device), tiny.tiny_discriminator().to(device)
        z = torch.randn([2, 16], generator=torch.Generator().manual_seed(0)).to(device)
        images = G(z, None, noise_mode="const", force_fp32=True).detach().requires_grad_()
        (slope,) = torch.autograd.grad(D(images, None).sum(), images, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.square().sum(), images)
        results.append([t.detach().cpu() for t in (images, slope, curvature)])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-4)
