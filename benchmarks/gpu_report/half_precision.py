"""Section: the networks of the reference pickles on this device, in float32 and in half precision."""
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training.checkpoints import pickles

from .section import Row, Setup

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
FILES = ("ffhq64", "cifar32")
ALLOWED = {"float32": 1e-3, "mixed": 3e-2}  # of the reference's standard deviation or largest value


def _set_half(network: torch.nn.Module) -> int:
    """Makes all blocks but those of 4 px compute in half precision; how many."""
    count = 0
    for module in network.modules():
        if getattr(module, "resolution", 0) > 4 and hasattr(module, "use_fp16"):
            module.use_fp16 = True  # type: ignore[assignment]
            count += 1
    return count


@torch.no_grad()
def _rows(setup: Setup, file: str, precision: str) -> list[Row]:
    with open(GOLDEN / f"{file}.pkl", "rb") as f:
        networks: dict[str, Any] = pickles.load_networks(f)
    with np.load(GOLDEN / f"{file}.npz") as data:
        reference = {name: torch.from_numpy(data[name]) for name in ("z", "c", "img_const", "real", "logits_real")
                     if name in data}  # fmt: skip
    G, D = networks["G_ema"].to(setup.device), networks["D"].to(setup.device)
    if precision == "mixed":
        assert _set_half(G) > 0
        assert _set_half(D) > 0
    z, c = (reference[name].to(setup.device) for name in ("z", "c"))
    force_fp32 = precision == "float32"
    images = G.synthesis(G.mapping(z, c), noise_mode="const", force_fp32=force_fp32).float().cpu()
    rows = [("image", images, reference["img_const"], reference["img_const"].std())]
    if "logits_real" in reference:
        logits = D(reference["real"].to(setup.device), c, force_fp32=force_fp32).float().cpu()
        rows.append(("logits", logits, reference["logits_real"], reference["logits_real"].abs().max()))
    return [
        {"file": file, "quantity": name, "precision": precision, "difference": ((a - b).abs().max() / scale).item(),
         "allowed": ALLOWED[precision], "ok": bool((a - b).abs().max() / scale <= ALLOWED[precision])}
        for name, a, b, scale in rows
    ]  # fmt: skip


def half_precision(setup: Setup) -> list[Row]:
    """Differences from the reference numbers; half precision is only used on a GPU."""
    precisions = ("float32", "mixed") if setup.is_cuda else ("float32",)
    return [row for file in FILES for precision in precisions for row in _rows(setup, file, precision)]
