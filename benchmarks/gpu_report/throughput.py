"""Section: images a second of generators of 256 and 1024 px, plain torch against ours."""
from typing import Any
from unittest import mock

import torch

from torch_utils.ops import settings
from training import networks

from .section import Row, Setup
from .timing import milliseconds

SIZES = {"256 px": (256, 16384, 16), "1024 px": (1024, 32768, 4)}  # resolution, channel_base, batch
TINY = {"16 px": (16, 256, 2)}


@torch.no_grad()
def throughput(setup: Setup) -> list[Row]:
    """Synthesis from given ws, random weights; four resolutions in half precision where it says mixed."""
    rows = []
    for name, (resolution, channel_base, batch) in (TINY if setup.is_tiny else SIZES).items():
        for num_fp16_res in (0, 4) if setup.is_cuda else (0,):
            torch.manual_seed(0)
            G: Any = networks.Generator(
                512, 0, 512, resolution, 3, mapping_kwargs={"num_layers": 2},
                synthesis_kwargs={"channel_base": channel_base, "num_fp16_res": num_fp16_res, "conv_clamp": 256},
            ).eval().requires_grad_(False).to(setup.device)  # fmt: skip
            ws = torch.randn([batch, G.num_ws, 512], device=setup.device)
            effort = {"calls": 1, "repeats": 1} if setup.is_tiny else {"calls": 4, "repeats": 5}
            seconds = {}
            for mode in dict.fromkeys(["ref", settings.mode]):
                with mock.patch.object(settings, "mode", mode):
                    seconds[mode] = milliseconds(
                        lambda G=G, ws=ws: G.synthesis(ws, noise_mode="const"),  # type: ignore[misc]
                        setup.device, **effort,
                    ) / 1000  # fmt: skip
            ours = seconds[settings.mode]
            rows.append({
                "generator": name, "batch": batch, "precision": "mixed" if num_fp16_res else "float32",
                "plain torch, images/s": round(batch / seconds["ref"], 1), "ours, images/s": round(batch / ours, 1),
                "ratio": round(seconds["ref"] / ours, 2), "GPU memory, GB": _peak_memory(setup),
            })  # fmt: skip
    return rows


def _peak_memory(setup: Setup) -> float:
    if not setup.is_cuda:
        return 0.0
    peak = torch.cuda.max_memory_allocated(setup.device) / 2**30
    torch.cuda.reset_peak_memory_stats(setup.device)
    return round(peak, 2)
