"""Settings from environment variables.

$SG_OPS: the fastest implementation of every operation ("auto"), a certain one, or plain torch ("ref").
$SG_CONV: "direct" keeps convolutions on a CPU to torch's own routines; "auto" is the default.
$SG_CPU_ISA: "avx2" makes the native CPU kernels do without AVX-512; "native", the default, is all that there is.
"""
import os

MODES = ("auto", "ninja", "nvrtc", "ref")
mode = os.environ.get("SG_OPS") or "auto"
conv = os.environ.get("SG_CONV") or "auto"
cpu_isa = os.environ.get("SG_CPU_ISA") or "native"
