"""Optimizers without torch's compiler: the same steps and states as torch's own, and nothing of it is imported."""
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from torch_utils import optimizers

PAIRS = [(optimizers.Adam, torch.optim.Adam), (optimizers.AdamW, torch.optim.AdamW)]
PROGRAM = """
import sys
import torch
from torch_utils.optimizers import Adam
from torch_utils.tensor_budget import TensorBudget
with torch.device("meta"), TensorBudget():
    torch.nn.Parameter(torch.randn([2, 3]).div_(0.1))
weights = torch.nn.Parameter(torch.ones(3))
opt = Adam([weights], lr=0.1)
weights.square().sum().backward()
opt.step()
opt.zero_grad()
opt.load_state_dict(opt.state_dict())
assert weights.requires_grad
assert "sympy" not in sys.modules
sys.stdout.write(" ".join(name for name in sys.modules if name.startswith("torch._dynamo")))
"""


def steps(cls: Callable[..., Any], state: dict[str, Any] | None = None) -> tuple[torch.Tensor, Any]:
    """Weights [P] after some steps, and the optimizer."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))
    opt = cls(net.parameters(), lr=0.01, betas=(0.0, 0.99))
    opt.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "lr": 0.1})
    if state is not None:
        opt.load_state_dict(state)
    for _ in range(4):
        opt.zero_grad(set_to_none=True)
        net(torch.randn(3, 4)).square().sum().backward()
        opt.step()
    return torch.cat([p.detach().flatten() for p in net.parameters()]), opt


@pytest.mark.parametrize(("own", "original"), PAIRS)
def test_steps_and_states_are_those_of_torch(own: Any, original: Any) -> None:
    (a, mine), (b, reference) = steps(own), steps(original)
    assert torch.equal(a, b)
    assert isinstance(mine, original)
    assert mine.state_dict().keys() == reference.state_dict().keys()
    assert mine.state_dict()["param_groups"] == reference.state_dict()["param_groups"]
    assert torch.equal(steps(own, reference.state_dict())[0], steps(original, mine.state_dict())[0])


def test_hooks_around_a_step_are_called() -> None:
    _, opt = steps(optimizers.Adam)
    called = []
    opt.register_step_post_hook(lambda *_: called.append(True))
    opt.step()
    assert called == [True]


def test_the_compiler_is_not_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout == ""
