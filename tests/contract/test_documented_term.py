"""The loss term that docs/architecture.md shows is one that a run can use."""
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dnnlib.registry import Registry
from training.loss import GenBatch

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_the_term_of_the_architecture_page_computes_what_it_says() -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    registry = Registry("loss term")
    exec(block, {"run_config": SimpleNamespace(LOSS_TERMS=registry)})
    term = registry.call("mymodule.Brightness", {"weight": 2.0}, device=torch.device("cpu"))
    img = torch.tensor([0.5, -1.0]).reshape(2, 1, 1, 1).expand(2, 3, 4, 4)
    none = torch.zeros([2, 0])
    loss = term(GenBatch(z=none, c=none, ws=none, img=img, img_aug=img, cur_nimg=0))
    assert loss.tolist() == pytest.approx([2 * 0.25, 2 * 1.0])
