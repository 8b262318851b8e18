"""Section: one training tick of every kind of run by train.py's own command line, here, without ops, and on the CPU."""
import json
import math
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image

from .section import Row, Setup

ROOT = Path(__file__).resolve().parents[2]
TEACHER = ROOT / "tests" / "golden" / "cifar32.pkl"  # conditional, 32 px, ten classes
TIMEOUT_SEC = 200
CPU_TIMEOUT_SEC = 1200  # where a CPU stands in, which other programs may share

SMALL = ["--cbase=512", "--cmax=16", "--z-dim=32", "--w-dim=32", "--map-depth=2"]
RUNS = {
    "stylegan2": ["--cfg=stylegan2", *SMALL],
    "dgl": ["--cfg=dgl", "--recipe=paper", f"--teacher={TEACHER}", "--width=0.5", "--cond=true"],
    "distillation": ["--cfg=dgl", f"--teacher={TEACHER}", "--width=0.5", "--cond=true"],
    "biggan": ["--cfg=biggan", "--cond=true", "--ch=8"],
    "stylegan3": ["--cfg=stylegan3-t", "--cbase=64", "--cmax=4", "--z-dim=16", "--w-dim=16", "--map-depth=1"],
}
SIDES = {"stylegan3": 16}  # of the images, where not 32; its filters take long on a CPU
LOSSES = ("Loss/G/loss", "Loss/D/loss", "Loss/r1_penalty", "Loss/distil/loss")
ALLOWED = 0.5  # of the CPU's loss, or of 1 if that is smaller: with other random numbers, only a gross error is one


def write_data(path: Path, num: int = 64, side: int = 32) -> Path:
    """A zip of smooth random images with labels of ten classes."""
    rng = np.random.RandomState(0)
    labels = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for i in range(num):
            coarse = PIL.Image.fromarray(rng.randint(0, 256, (4, 4, 3), dtype=np.uint8))
            buffer = BytesIO()
            coarse.resize((side, side), PIL.Image.Resampling.BICUBIC).save(buffer, format="PNG")
            archive.writestr(f"{i}.png", buffer.getvalue())
            labels.append([f"{i}.png", i % 10])
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path


def run(
    data: Path, arguments: list[str], device: str, mode: str, folder: Path, timeout_sec: int = TIMEOUT_SEC
) -> dict[str, float | str]:
    """The last line of stats.jsonl of a run of one tick, or {"error": why there is none}."""
    command = [sys.executable, "train.py", f"--data={data}", f"--outdir={folder}", *arguments, "--batch=64", "--kimg=1",
               "--tick=1", "--metrics=none", "--workers=1", "--seed=0", f"--device={device}"]  # fmt: skip
    environment = {**os.environ, "SG_OPS": mode, "OMP_NUM_THREADS": str(min(os.cpu_count() or 1, 4))}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout_sec)
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout_sec} s"}
    if done.returncode != 0:
        return {"error": " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-1:])[:300]}
    stats = next(folder.glob("*/stats.jsonl")).read_text().splitlines()
    values = {name: value.get("mean") for name, value in json.loads(stats[-1]).items() if isinstance(value, dict)}
    return {name: value for name, value in values.items() if value is not None}


def ticks(setup: Setup, names: tuple[str, ...] = tuple(RUNS)) -> list[Row]:
    """Losses are means over a tick, with random numbers of the device's own: near the CPU's, not equal."""
    data = {side: write_data(setup.folder / f"images{side}.zip", side=side) for side in {32, *SIDES.values()}}
    mode = os.environ.get("SG_OPS", "auto")
    places = dict.fromkeys([(setup.device.type, mode), (setup.device.type, "ref"), ("cpu", mode)])
    jobs = [(name, *place) for name in names for place in places]

    def do(job: tuple[str, str, str]) -> dict[str, float | str]:
        images = data[SIDES.get(job[0], 32)]
        timeout_sec = TIMEOUT_SEC if setup.is_cuda else CPU_TIMEOUT_SEC
        return run(images, RUNS[job[0]], job[1], job[2], setup.folder / "-".join(job), timeout_sec)

    with ThreadPoolExecutor(max_workers=4 if setup.is_cuda else 1) as pool:
        results = dict(zip(jobs, pool.map(do, jobs)))
    rows = []
    for (name, device, ops), result in results.items():
        reference = results[name, "cpu", mode]
        row: Row = {"run": name, "device": device, "SG_OPS": ops}
        for loss in LOSSES:
            row[loss] = result.get(loss, "")
        row["s per kimg"] = result.get("Timing/sec_per_kimg", "")
        row["GPU memory, GB"] = result.get("Resources/peak_gpu_mem_gb", "")
        row["error"] = result.get("error", "")
        row["ok"] = not row["error"] and all(is_near(result, reference, loss) for loss in LOSSES)
        rows.append(row)
    return rows


def is_near(result: dict[str, float | str], reference: dict[str, float | str], loss: str) -> bool:
    """Whether a loss is about that of the CPU, where both have it."""
    a, b = result.get(loss, 0.0), reference.get(loss, 0.0)
    assert isinstance(a, float)
    assert isinstance(b, float)
    return math.isfinite(a) and abs(a - b) <= ALLOWED * max(abs(b), 1)
