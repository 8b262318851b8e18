"""The arguments of the kernels as C structures; the twins of torch_utils/ops/csrc/params.cuh."""
import ctypes
from typing import ClassVar


class Upfirdn2dParams(ctypes.Structure):
    """The arguments of the upfirdn2d kernels."""

    _fields_: ClassVar = [
        ("x", ctypes.c_void_p),
        ("f", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("x_stride", ctypes.c_longlong * 4),
        ("y_stride", ctypes.c_longlong * 4),
        ("f_stride", ctypes.c_longlong * 2),
        ("outputs", ctypes.c_longlong),
        ("gain", ctypes.c_double),
        ("n", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("h", ctypes.c_int),
        ("w", ctypes.c_int),
        ("out_h", ctypes.c_int),
        ("out_w", ctypes.c_int),
        ("fh", ctypes.c_int),
        ("fw", ctypes.c_int),
        ("up_x", ctypes.c_int),
        ("up_y", ctypes.c_int),
        ("down_x", ctypes.c_int),
        ("down_y", ctypes.c_int),
        ("pad_x", ctypes.c_int),
        ("pad_y", ctypes.c_int),
        ("flip", ctypes.c_int),
        ("channels_last", ctypes.c_int),
        ("strips", ctypes.c_int),
        ("channel_groups", ctypes.c_int),
        ("rows_per_block", ctypes.c_int),
        ("reserved", ctypes.c_int),
    ]


class BiasActParams(ctypes.Structure):
    """The arguments of the bias_act kernels."""

    _fields_: ClassVar = [
        ("ref", ctypes.c_void_p),
        ("b", ctypes.c_void_p),
        ("dy", ctypes.c_void_p),
        ("ddx", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("numel", ctypes.c_longlong),
        ("step_b", ctypes.c_longlong),
        ("size_b", ctypes.c_longlong),
        ("alpha", ctypes.c_double),
        ("gain", ctypes.c_double),
        ("clamp", ctypes.c_double),
        ("act", ctypes.c_int),
        ("packed", ctypes.c_int),
    ]


Params = Upfirdn2dParams | BiasActParams

# What csrc/params.cuh asserts of its side.
assert ctypes.sizeof(Upfirdn2dParams) == 200
assert ctypes.sizeof(BiasActParams) == 96
