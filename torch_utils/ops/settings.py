"""What the environment asks for.

$SG_OPS: the fastest implementation of every operation ("auto"), a certain one, or plain torch ("ref").
$SG_CONV: "direct" keeps convolutions on a CPU to torch's own routines; "auto" is the default.
"""
import os

MODES = ("auto", "ninja", "nvrtc", "ref")
mode = os.environ.get("SG_OPS") or "auto"
conv = os.environ.get("SG_CONV") or "auto"
