"""The helpers that embedded texts may use."""
import contextlib

import numpy as np
import torch


def constant(value, shape=None, dtype=None, device=None, memory_format=None):
    """A tensor of a fixed value."""
    tensor = torch.as_tensor(np.asarray(value), dtype=dtype or torch.get_default_dtype(), device=device)
    if shape is not None:
        tensor = tensor.expand(shape)
    return tensor.contiguous(memory_format=memory_format or torch.contiguous_format)


def assert_shape(tensor, ref_shape):
    """None stands for any size."""
    assert tensor.ndim == len(ref_shape)
    assert all(want in (None, have) for have, want in zip(tensor.shape, ref_shape))


@contextlib.contextmanager
def suppress_tracer_warnings():
    """Nothing is traced here."""
    yield


def profiled_function(fn):
    """Nothing is profiled here."""
    return fn


def copy_params_and_buffers(src, dst, require_all=False):
    """Copies by name."""
    have = {**dict(src.named_parameters()), **dict(src.named_buffers())}
    for name, tensor in [*dst.named_parameters(), *dst.named_buffers()]:
        assert not require_all or name in have, name
        if name in have:
            tensor.data.copy_(have[name].data)
