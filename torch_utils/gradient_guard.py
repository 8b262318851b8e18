"""A guard against NaN and infinite gradients."""
from collections.abc import Mapping
from typing import Any

import torch

GRADIENT_LIMIT = 1e5  # what an infinite gradient is replaced by


class GradientGuard:
    """Replaces non-finite gradients and counts them without synchronising with the device.

    Attributes:
        steps: optimizer steps so far in which a gradient was not finite (scalar tensor).
    """

    def __init__(self, device: torch.device) -> None:
        self.steps = torch.zeros([], dtype=torch.int64, device=device)
        self._longest = torch.zeros_like(self.steps)  # most such steps of one phase in a row since `take_longest`
        self._rows: dict[str, torch.Tensor] = {}  # phase → such steps in a row up to now

    def clean_(self, gradient: torch.Tensor, phase: str) -> None:
        """Replaces NaN by 0 and infinities by ±GRADIENT_LIMIT in a gradient [P], in place."""
        bad = (~gradient.isfinite()).any()
        self.steps += bad
        row = self._rows.setdefault(phase, torch.zeros_like(self.steps))
        row.add_(1).mul_(bad)
        torch.maximum(self._longest, row, out=self._longest)
        torch.nan_to_num(gradient, nan=0.0, posinf=GRADIENT_LIMIT, neginf=-GRADIENT_LIMIT, out=gradient)

    def take_longest(self) -> int:
        """The most such steps in a row, of one phase, since the last call."""
        longest = int(self._longest)
        self._longest.zero_()
        return longest

    def state_dict(self) -> dict[str, Any]:
        """What an exact resume must restore."""
        rows = {phase: row.clone() for phase, row in self._rows.items()}
        return {"steps": self.steps.clone(), "longest": self._longest.clone(), "rows": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`."""
        self.steps.copy_(state["steps"])
        self._longest.copy_(state["longest"])
        self._rows = {phase: row.to(self.steps.device, copy=True) for phase, row in state["rows"].items()}
