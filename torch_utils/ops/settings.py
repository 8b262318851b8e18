"""What $SG_OPS asks for: the fastest implementation of every operation, a certain one, or plain torch."""

from __future__ import annotations

import os

MODES = ("auto", "ninja", "nvrtc", "ref")
mode = os.environ.get("SG_OPS") or "auto"
