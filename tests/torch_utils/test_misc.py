"""torch_utils.misc: constants, shape checks, weights by name, summaries, devices."""
import re
import warnings
from contextlib import contextmanager

import pytest
import torch

from dnnlib.errors import UserError
from tests import forks
from torch_utils import devices, misc, summary


def test_constant_is_made_once():
    a = misc.constant([1, 2, 3])
    assert a.dtype == torch.get_default_dtype()
    assert a.tolist() == [1, 2, 3]
    assert misc.constant([1, 2, 3]) is a
    assert misc.constant([1, 2, 3], dtype=torch.float64) is not a
    assert misc.constant([1.0, 2, 3], device="cpu") is not a
    assert misc.constant(5, shape=[2, 3]).tolist() == [[5] * 3] * 2
    assert misc.constant(5, shape=[]) is misc.constant(5, shape=())
    x = misc.constant(1, shape=(2, 3, 4, 5), memory_format=torch.channels_last)
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_constant_made_in_inference_mode_is_fit_for_gradients():
    with torch.inference_mode():
        c = misc.constant([0.125, 7.25])
    x = torch.ones(2, requires_grad=True)
    (x * c).sum().backward()
    assert x.grad.tolist() == [0.125, 7.25]


def test_constant_does_not_keep_a_tracers_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        misc.constant([0.5, 9.75])
    assert type(misc.constant([0.5, 9.75])) is torch.Tensor


def test_nan_to_num():
    x = torch.tensor([float("nan"), float("inf"), -float("inf"), 1])
    assert misc.nan_to_num(x, nan=2.0, posinf=1e5, neginf=-1e5).tolist() == [2, 1e5, -1e5, 1]


def test_symbolic_assert():
    misc.symbolic_assert(torch.tensor(True), "fine")
    with pytest.raises(AssertionError, match="not fine"):
        misc.symbolic_assert(torch.tensor(False), "not fine")


def test_assert_shape():
    x = torch.zeros(2, 3)
    misc.assert_shape(x, [2, 3])
    misc.assert_shape(x, (None, 3))
    with pytest.raises(AssertionError, match=re.escape("expected a tensor of shape [None, 4], found [2, 3]")):
        misc.assert_shape(x, [None, 4])
    with pytest.raises(AssertionError, match=re.escape("expected a tensor of shape [2], found [2, 3]")):
        misc.assert_shape(x, [2])


class Checked(torch.nn.Module):
    """A module as the networks are written."""

    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 4)

    @misc.profiled_function
    def double(self, x):
        return x * 2

    def forward(self, x):
        misc.assert_shape(x, [None, self.fc.weight.shape[1]])
        with misc.suppress_tracer_warnings():
            batch = int(x.shape[0])
        x = x.reshape(batch, -1) if torch.jit.is_tracing() else x
        y = self.double(self.fc(x)) + misc.constant([1, 2, 3, 4.5])
        misc.assert_shape(y, [x.shape[0], 4])
        return y


@pytest.fixture
def checked():
    torch.manual_seed(0)
    return Checked()


def test_checks_compile_into_one_graph(checked):
    compiled = torch.compile(checked, backend="eager", fullgraph=True)
    x = torch.randn(2, 3)
    assert torch.equal(compiled(x), checked(x))
    with pytest.raises(AssertionError, match="expected a tensor of shape"):
        checked(torch.randn(2, 5))


def test_checks_export_with_any_batch(checked):
    batch = torch.export.Dim("batch", min=2, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its own parts
        program = torch.export.export(checked, (torch.randn(4, 3),), dynamic_shapes={"x": {0: batch}}, strict=True)
        exported = program.module()
    x = torch.randn(7, 3)
    assert torch.allclose(exported(x), checked(x))


def test_checks_trace_without_tracer_warnings(checked):
    x = torch.randn(2, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traced = torch.jit.trace(checked, (x,), check_trace=False)
    assert [w.message for w in caught if issubclass(w.category, torch.jit.TracerWarning)] == []
    assert torch.equal(traced(x), checked(x))


def test_tracer_warnings_come_back_after_the_context():
    def convert(x):
        with misc.suppress_tracer_warnings():
            first = int(x.shape[0])
        return x * first * int(x.shape[0])

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.jit.trace(convert, (torch.ones(2),), check_trace=False)
    assert len([w for w in caught if issubclass(w.category, torch.jit.TracerWarning)]) == 1


def test_profiled_function_keeps_its_name():
    @misc.profiled_function
    def my_special_op(x, y=1):
        """Doc."""
        return x + y

    with torch.autograd.profiler.profile() as profile:
        assert my_special_op(1, y=2) == 3
    assert my_special_op.__doc__ == "Doc."
    assert "my_special_op" in {event.name for event in profile.function_events}


def test_params_and_buffers():
    net = torch.nn.BatchNorm1d(2)
    names = [name for name, _ in misc.named_params_and_buffers(net)]
    assert names == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert [id(t) for t in misc.params_and_buffers(net)] == [id(t) for _, t in misc.named_params_and_buffers(net)]


def test_copy_leaves_names_and_flags_that_differ():
    src = torch.nn.ParameterDict({"a": torch.ones(2), "only_src": torch.ones(1)})
    dst = torch.nn.Module()
    dst.register_buffer("a", torch.zeros(2))  # trainable there, frozen here
    dst.b = torch.nn.Parameter(torch.zeros(3), requires_grad=True)
    misc.copy_params_and_buffers(src, dst)
    assert dst.a.tolist() == [1, 1]
    assert not dst.a.requires_grad
    assert dst.b.tolist() == [0, 0, 0]
    assert dst.b.requires_grad
    dst.a += 1
    assert src["a"].tolist() == [1, 1]


def test_copy_into_parameters_that_require_gradients():
    src, dst = torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 2)
    misc.copy_params_and_buffers(src, dst, require_all=True)
    assert torch.equal(src.weight, dst.weight)
    assert dst.weight.requires_grad
    assert dst.weight.is_leaf


def test_copy_lists_all_problems_and_changes_nothing():
    src = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 3), "b": torch.nn.Linear(2, 2, bias=False)})
    dst = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 4), "b": torch.nn.Linear(2, 2)})
    before = [t.clone() for t in misc.params_and_buffers(dst)]
    message = "missing: b.bias; other shape: a.weight [3, 2] instead of [4, 2], a.bias [3] instead of [4]"
    with pytest.raises(misc.WeightsError, match=re.escape(message)):
        misc.copy_params_and_buffers(src, dst, require_all=True)
    with pytest.raises(UserError, match=re.escape("ModuleDict: the weights do not fit ModuleDict: other shape: a.w")):
        misc.copy_params_and_buffers(src, dst)
    assert all(torch.equal(a, b) for a, b in zip(before, misc.params_and_buffers(dst), strict=True))


def test_copy_shortens_long_lists():
    dst = torch.nn.Sequential(*[torch.nn.Linear(1, 1) for _ in range(10)])
    with pytest.raises(misc.WeightsError, match=r"missing: 0\.weight, .*3\.bias and 12 more"):
        misc.copy_params_and_buffers(torch.nn.Identity(), dst, require_all=True)


def test_ddp_sync(monkeypatch):
    class Replica(torch.nn.Module):
        """Stands for a DistributedDataParallel module."""

        local = False

        @contextmanager
        def no_sync(self):
            self.local = True
            yield
            self.local = False

    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", Replica)
    replica = Replica()
    with misc.ddp_sync(replica, sync=True):
        assert not replica.local
    with misc.ddp_sync(replica, sync=False):
        assert replica.local
    assert not replica.local
    with misc.ddp_sync(torch.nn.Linear(1, 1), sync=False):  # nothing to switch off
        assert not replica.local


def test_check_ddp_consistency_of_a_single_process():
    misc.check_ddp_consistency(torch.nn.Linear(1, 1))  # nothing to compare with
    assert misc.distributed.world_size() == 1


class Twins(torch.nn.Module):
    """Two outputs, a shared layer, a layer without tensors."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Identity())
        self.norm = torch.nn.BatchNorm1d(4)
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, flag):
        y = self.body(x)
        return self.norm(y), (y * self.scale).to(torch.float64)


def test_module_summary_counts_each_tensor_once(capsys):
    net = Twins()
    outputs = misc.print_module_summary(net, [torch.zeros(2, 3), None])
    assert [list(y.shape) for y in outputs] == [[2, 4], [2, 4]]
    rows = [re.split(r"  +", line) for line in capsys.readouterr().out.strip().splitlines()]
    assert rows[0] == ["Module", "Parameters", "Buffers", "Output shape", "Datatype"]
    assert [row[0] for row in rows[2:]] == ["body.0", "body.1", "norm", "Twins", "Twins:1", "---", "Total"]
    table = {row[0]: row[1:] for row in rows}
    assert table["body.0"] == ["16", "-", "[2, 4]", "float32"]
    assert table["norm"] == ["8", "9", "[2, 4]", "float32"]
    assert table["Twins"] == ["1", "-", "[2, 4]", "float32"]
    assert table["Twins:1"] == ["-", "-", "[2, 4]", "float64"]
    assert table["Total"] == ["25", "9", "-", "-"]


def test_module_summary_options():
    net = Twins()
    shallow, _ = summary.module_summary(net, [torch.zeros(2, 3), None], max_nesting=1)
    assert [line.split()[0] for line in shallow.splitlines()[2:-2]] == ["body", "norm", "Twins", "Twins:1"]
    full, _ = summary.module_summary(net, [torch.zeros(2, 3), None], skip_redundant=False)
    assert "body.2" in full
    assert not any(module._forward_hooks for module in net.modules())
    silent = torch.nn.Module()
    silent.forward = lambda: "text"
    table, text = summary.module_summary(silent, [], skip_redundant=False)
    assert text == "text"
    assert "Module  -           -        -             -" in table


def test_module_summary_removes_its_hooks_on_error():
    net = Twins()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        misc.print_module_summary(net, [torch.zeros(2, 5), None])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_resolve_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert devices.resolve_device("cpu") == devices.resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match=r"^device: torch .* finds no CUDA GPU here; use `device=cpu`$"):
        devices.resolve_device("cuda")
    with pytest.raises(UserError, match=r"^device: torch .* finds no Apple GPU here; use `device=cpu`$"):
        devices.resolve_device("mps")
    with pytest.raises(UserError, match=r"^device: expected auto, cpu, cuda or mps, found 'tpuu'$"):
        devices.resolve_device("tpuu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert devices.resolve_device("auto").type == "mps"


def test_resolve_device_takes_this_process_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert devices.resolve_device("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.resolve_device("cuda") == torch.device("cuda", 1)
    assert devices.resolve_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(UserError, match=r"device: cuda:2 does not exist, this machine has 2 GPU\(s\)"):
        devices.resolve_device("cuda:2")


_PROBE = "from torch_utils import devices; print(devices.tune_allocator(), devices.tune_allocator())"


@pytest.mark.skipif(not devices._is_glibc(), reason="needs glibc")
@pytest.mark.parametrize(("setting", "expected"), [("", "True True"), ("default", "False False")])
def test_tune_allocator(setting, expected, monkeypatch):
    monkeypatch.setenv("SG_MALLOC", setting)
    done = forks.run(_PROBE)
    assert (done.stdout.strip(), done.stderr) == (expected, "")


class _Libc:
    """A C library that notes the calls of mallopt and returns a given value."""

    def __init__(self, answer):
        self.calls = []
        self.mallopt = lambda *args: self.calls.append(args) or answer(*args)
        self.malloc_trim = lambda pad: 1


@pytest.mark.parametrize(
    ("answer", "calls", "expected"),
    [
        (lambda param, value: 1, [(-3, 2**31 - 1), (-1, 2**31 - 1)], True),
        (lambda param, value: param != -3 or value <= 2**25, [(-3, 2**31 - 1), (-3, 2**25), (-1, 2**31 - 1)], True),
        (lambda param, value: 0, [(-3, 2**31 - 1), (-3, 2**25)], False),
    ],
)
def test_allocator_thresholds(monkeypatch, answer, calls, expected):
    libc = _Libc(answer)
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: libc)
    assert devices._set_thresholds() is expected
    assert libc.calls == calls


def test_allocator_on_other_systems(monkeypatch):
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: object())
    assert devices._set_thresholds() is False

    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(devices.os, "confstr", unknown, raising=False)
    assert devices._is_glibc() is False
