"""Training runs of a few iterations, configured by train.py's own command line."""
import json
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner

import train
from torch_utils import training_stats
from training import run_config
from training.data import image_grid
from training.training_loop import training_loop

STYLEGAN2 = ["--cfg=stylegan2", "--cbase=128", "--cmax=16", "--z-dim=16", "--w-dim=16", "--map-depth=2", "--batch=4",
             "--mbstd-group=2", "--workers=0"]
DGL = ["--cfg=dgl", "--recipe=paper", "--batch=4", "--workers=0"]
# Ten iterations in four ticks: after the first, the fourth, the seventh and the tenth.
SHORT = {"total_kimg": 0.04, "kimg_per_tick": 0.012, "image_snapshot_ticks": 2, "network_snapshot_ticks": 2,
         "D_reg_interval": 4}


def options(data: str, *args: str, **changes: Any) -> dict[str, Any]:
    """Arguments of the training loop as train.py makes them, with what it cannot make so small."""
    command = [f"--data={data}", "--outdir=/tmp", "--metrics=none", "--dry-run", "--no-estimate", *args]
    result = CliRunner().invoke(train.main, command)
    assert result.exit_code == 0, result.output
    actual = json.loads(result.stdout.split("Resolved options:\n")[1].split("\n\nNothing was started")[0])
    for name in ("num_gpus", "run_dir"):
        actual.pop(name)
    return {**actual, **SHORT, **changes}


def run(folder: Path, config: dict[str, Any], **changes: Any) -> Path:
    """Trains in `folder`, in this process, as if it were a new one."""
    folder.mkdir(exist_ok=True)
    training_stats._counters = training_stats._Counters()
    pixels, image_grid.MAX_PIXELS = image_grid.MAX_PIXELS, (1, 1)
    values = {**config, **changes}
    further = {name: values.pop(name) for name in ("progress_fn", "abort_fn") if name in values}
    resume = values.pop("resume_state", False)
    try:
        training_loop(run_config.from_dict(values), str(folder), resume, **further)
    finally:
        image_grid.MAX_PIXELS = pixels
    return folder


def last_state(folder: Path) -> dict[str, Any]:
    """The newest state of a run, without what depends on the time it took."""
    newest = max((folder / "state").glob("training-state-*.pt"))
    return {k: v for k, v in torch.load(newest, weights_only=True).items() if k not in ("elapsed_sec", "stats_bytes")}


def records(folder: Path) -> list[dict[str, Any]]:
    """stats.jsonl without times and resources."""
    lines = (folder / "stats.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if keep(name)} for line in lines]


def keep(name: str) -> bool:
    """Whether a statistic must not depend on the machine or the time."""
    return not name.startswith(("Timing/", "Resources/")) and name != "timestamp"


def differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Where two nested states differ by as much as a bit; statistics of times are left out."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = [name for name in {**a, **b} if keep(str(name))]
        return [d for name in names for d in differences(a.get(name), b.get(name), f"{path}/{name}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in differences(x, y, f"{path}/{i}")]
    if torch.is_tensor(a) and torch.is_tensor(b):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
    else:
        same = a == b or (a != a and b != b)  # NaN is NaN
    return [] if same else [path]
