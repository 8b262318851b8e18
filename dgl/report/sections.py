"""The sections of the page, each from networks or files to HTML."""
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.cluster.vq
import torch

from dnnlib.cli import seed_latents
from dnnlib.errors import UserError
from torch_utils.network_types import Generator
from training.data.images import table as tiled
from training.data.images import truncated

from .. import cost
from . import drawing

TRUNCATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
CURVES = ("Loss/", "Progress/augment", "Teacher/", "KD/")  # of the statistics of a run
CLUSTERS = 10


def labels(G: Generator, count: int) -> torch.Tensor:
    """Labels [count, c_dim], the classes taking turns."""
    return torch.eye(G.c_dim)[torch.arange(count) % G.c_dim] if G.c_dim else torch.zeros([count, 0])


@torch.no_grad()
def generated(G: Generator, count: int, psi: float = 1, batch: int = 16) -> np.ndarray:
    """Images of the seeds 0, 1, ...: uint8 [count, H, W, C]."""
    z = torch.from_numpy(seed_latents(list(range(count)), G.z_dim))
    pairs = zip(z.split(batch), labels(G, count).split(batch))
    return np.concatenate([truncated(G(zs, cs, truncation_psi=psi, noise_mode="const")) for zs, cs in pairs])


def images(generators: Mapping[str, Any], count: int) -> str:
    """Grids on the same latents, one per truncation and network, under a slider."""
    parts = ['<label>Truncation <output id="psi-text">1</output><input id="psi" type="range" min="0" '
             f'max="{len(TRUNCATIONS) - 1}" step="1" value="{len(TRUNCATIONS) - 1}"></label>']
    columns = next(iter(generators.values())).c_dim or None
    for name, G in generators.items():
        grids = []
        for step, psi in enumerate(TRUNCATIONS):
            hidden = {} if psi == 1 else {"hidden": "hidden"}
            grid = tiled(list(generated(G, count, psi)), -(-count // columns) if columns else None)
            grids.append(drawing.picture(grid, f"images of {name}, truncation {psi}", data_step=str(step),
                                         data_psi=str(psi), **hidden))
        parts.append(f"<figure><figcaption>{name}</figcaption>{''.join(grids)}</figure>")
    return "".join(parts)


def differences(teacher: Generator, others: Mapping[str, Any], count: int) -> str:
    """Heat maps of the difference from the teacher on the same latents, and its mean."""
    reference = generated(teacher, count).astype(np.float64)
    parts = []
    for name, G in others.items():
        errors = np.abs(generated(G, count) - reference).mean(axis=3) / 255
        maps = [drawing.heat_map(np.minimum(error * 2, 1)) for error in errors]
        parts.append(f"<figure><figcaption>{name}: mean {errors.mean() * 255:.1f} grey levels; white is half the range "
                     f"or more</figcaption>{drawing.picture(tiled(maps), f'differences of {name}')}</figure>")
    return "".join(parts)


def costs(generators: Mapping[str, Any]) -> str:
    """Parameters, multiply-accumulates, file sizes and milliseconds."""
    rows = []
    for name, G in generators.items():
        row = cost.measure(name, G)
        rows.append([name, f"{row.params:,}", f"{row.macs_in / 1e6:,.1f} M", f"{row.file_bytes / 2**20:.2f} MiB",
                     f"{row.ms_batch1:.2f}", f"{row.ms_batch8:.2f}"])
    return drawing.table(["network", "parameters", "MACs", "file", "ms per image, batch 1", "batch 8"], rows)


def channels(teacher: Generator, student: Generator) -> str:
    """Output channels of every convolution, student's and teacher's."""
    widths = [{name.removesuffix(".weight"): p.shape[0] for name, p in G.named_parameters()
               if name.endswith(".weight") and p.ndim == 4} for G in (teacher, student)]
    rows = {name: (float(whole), float(widths[1][name])) for name, whole in widths[0].items() if name in widths[1]}
    return drawing.bars(rows, ("teacher", "student"))


def modes(teacher: Generator, student: Generator, count: int) -> str:
    """Clusters of the teacher's images, and which share of the student's images falls into each.

    The clusters are those of 8x8 pixels (k-means); a mode counts as lost where the student has less than a fifth of
    the teacher's share.
    """
    vectors = [_small(generated(G, count)) for G in (teacher, student)]
    centres, of_teacher = scipy.cluster.vq.kmeans2(vectors[0], min(CLUSTERS, count), minit="++", seed=0)
    of_student, _ = scipy.cluster.vq.vq(vectors[1], centres)
    shares = [np.bincount(index, minlength=len(centres)) / count for index in (of_teacher, of_student)]
    lost = int((shares[1] < shares[0] / 5).sum())
    rows = {f"cluster {i}": (round(100 * a, 1), round(100 * b, 1)) for i, (a, b) in enumerate(zip(*shares)) if a > 0}
    return (f"<p>{lost} of {len(rows)} clusters of {count} images are lost. Percent of the images:</p>"
            + drawing.bars(rows, ("teacher", "student")))


def _small(pictures: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] as vectors [N, 64 C]."""
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    return torch.nn.functional.adaptive_avg_pool2d(tensor, 8).flatten(1).numpy().astype(np.float64)


def nearest(student: Generator, data: str, count: int, most: int = 5000) -> str:
    """The student's images above the training images that are nearest to them in 8x8 pixels.

    Raises:
        UserError: the data cannot be read or are of another size.
    """
    from training.dataset import ImageFolderDataset

    dataset = ImageFolderDataset(path=data)
    shape = [student.img_channels, student.img_resolution, student.img_resolution]
    if list(dataset.image_shape) != shape:
        raise UserError(f"expected images {shape}, found {list(dataset.image_shape)} in {data}", field="data")
    real = np.stack([dataset[i][0].transpose(1, 2, 0) for i in range(min(len(dataset), most))])
    fake = generated(student, count)
    index, _ = scipy.cluster.vq.vq(_small(fake), _small(real))
    pairs = np.concatenate([np.concatenate(list(fake), axis=1), np.concatenate(list(real[index]), axis=1)])
    return f"<p>Of {len(real)} training images.</p>" + drawing.picture(pairs, "images above their nearest neighbours")


def _rows(path: Path) -> list[dict[str, Any]]:
    """The complete JSON lines of a file; a run may be writing it."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def scores(run_dir: Path) -> str:
    """The metrics of a run, the last row of each, with protocol; and their curves."""
    rows, curves = [], []
    for path in sorted(run_dir.glob("metric-*.jsonl")):
        scored = [row for row in _rows(path) if isinstance(row.get("results"), dict)]
        for name in scored[-1]["results"] if scored else []:
            values = [float(row["results"][name]) for row in scored if name in row["results"]]
            rows.append([name, f"{values[-1]:.4g}", f"{min(values):.4g}", json.dumps(scored[-1].get("protocol", {}))])
            curves.append(drawing.curve(f"{name} by snapshot", list(enumerate(values))))
    if not rows:
        return "<p>This run has no metrics.</p>"
    return drawing.table(["metric", "last", "smallest", "protocol of the last"], rows) + "".join(curves)


def curves(run_dir: Path) -> str:
    """Losses, signs and augmentation of a run against thousands of images."""
    series: dict[str, list[tuple[float, float]]] = {}
    path = run_dir / "stats.jsonl"
    for row in _rows(path) if path.is_file() else []:
        kimg = row.get("Progress/kimg")
        x = kimg.get("mean") if isinstance(kimg, dict) else None
        for name, value in row.items():
            y = value.get("mean") if isinstance(value, dict) else None
            if name.startswith(CURVES) and isinstance(x, (int, float)) and isinstance(y, (int, float)):
                series.setdefault(name, []).append((x, y))
    drawn = "".join(drawing.curve(name, points) for name, points in sorted(series.items()))
    return drawn or "<p>This run has no statistics of two ticks.</p>"
