"""Folders for a model hub: weights and configuration without pickle, a model card, a grid of samples."""
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dnnlib import strict_json
from dnnlib.cli import VECTORS, seed_latents
from dnnlib.errors import UserError
from dnnlib.files import atomic_dir, open_atomic, write_json_atomic
from torch_utils.network_types import Generator, image_size
from training import architectures
from training.checkpoints import safetensors_files
from training.data import image_grid

_COLUMNS, _ROWS = 6, 4  # of the grid

_CARD = """---
license: other
tags: [gan, image-generation, {family}]
---

# {title}

A generator ({family}) for {width}x{height} images of {channels} channel(s){classes}, {params:,} parameters.

![{columns} x {rows} samples, seeds 0 to {last}](samples.png)

{teacher}
## Use

```python
{usage}
```

Latents z are normal [N, {z_dim}]{labels}; images are float32 [N, {channels}, {height}, {width}] in [-1, 1].
`model.safetensors` holds the weights and, in its header, `config.json`. There is no pickle in this
folder, and none is read from it.{rounded}

## Architecture

`{kind}` with these arguments:

```json
{arguments}
```

## Scores

{scores}

## Licence

Weights derived from a teacher's stay under the licence of the teacher's weights. Those that NVIDIA
publishes are for non-commercial use. Fill in `license` above accordingly.
"""

_ROUNDED = """ Weights are stored in float16; samples and scores are
those of the network before they were rounded."""


def read_scores(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The last row of every metric in a file that calc_metrics.py or a training run wrote.

    Raises:
        UserError: the file is missing, or no such file.
    """
    try:
        rows = [strict_json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{os.fspath(path)} is no file of metric rows ({error})", field="scores") from error
    if not rows or not all(isinstance(row, dict) and isinstance(row.get("results"), dict) for row in rows):
        raise UserError(f"{os.fspath(path)}: expected rows with `results`, as calc_metrics.py writes them",
                        field="scores")
    return list({str(row.get("metric")): row for row in rows}.values())


def card(
    G: Generator, title: str, usage: str,
    teacher: tuple[str, str] | None = None, scores: Sequence[Mapping[str, Any]] = (), label_kind: str | None = None,
    half: bool = False,
) -> str:
    """The model card.

    Args:
        G: generator.
        title: of the card.
        usage: Python code that loads the folder.
        teacher: file name and sha256 of the network that it was derived from.
        scores: rows of `read_scores`.
        label_kind: one of `dnnlib.cli.LABEL_KINDS`, if it is known.
        half: weights are stored in float16.
    """
    derived = "" if teacher is None else f"Derived from the teacher `{teacher[0]}` (sha256 `{teacher[1]}`).\n"
    lines = [f"- {name}: {value:.4g} (protocol: `{json.dumps(row.get('protocol', {}))}`)"
             for row in scores for name, value in row["results"].items()]
    architecture = safetensors_files.configuration({"G_ema": G})["networks"]["G_ema"]
    return _CARD.format(
        title=title, usage=usage.strip(), teacher=derived, family=architectures.of_network(G).name,
        rounded=_ROUNDED if half else "",
        kind=architecture["class"], arguments=json.dumps(architecture["arguments"], indent=1),
        height=image_size(G)[0], width=image_size(G)[1], channels=G.img_channels, z_dim=G.z_dim,
        classes=f" of {G.c_dim} classes" if G.c_dim and label_kind != VECTORS else "",
        labels=f", labels {'' if label_kind == VECTORS else 'one-hot '}[N, {G.c_dim}]" if G.c_dim else ", labels None",
        params=sum(p.numel() for p in G.parameters()),
        columns=_COLUMNS, rows=_ROWS, last=_COLUMNS * _ROWS - 1,
        scores="\n".join(lines) or "None were given when this folder was made.",
    )


def write(
    parts: Mapping[str, Any],
    dest: str | os.PathLike,
    usage: str,
    teacher: tuple[str, str] | None = None,
    scores: Sequence[Mapping[str, Any]] = (),
    label_kind: str | None = None,
    half: bool = False,
) -> None:
    """Writes a folder: model.safetensors, config.json, README.md (the card) and samples.png.

    Args:
        parts: networks by role, G_ema among them.
        dest: must not exist.
        usage: Python code that loads the folder.
        teacher: file name and sha256 of the network that it was derived from.
        scores: rows of `read_scores`.
        label_kind: one of `dnnlib.cli.LABEL_KINDS`, if it is known.
        half: store weights in float16; the card says so.

    Raises:
        UserError: the folder exists or cannot be written, or a network cannot be stored.
    """
    G = parts["G_ema"]
    count = _COLUMNS * _ROWS
    z = torch.from_numpy(seed_latents(list(range(count)), G.z_dim))
    c = torch.eye(G.c_dim)[torch.arange(count) % G.c_dim] if G.c_dim else torch.zeros([count, 0])
    with atomic_dir(dest) as folder:
        information = {} if label_kind is None else {safetensors_files.LABEL_KIND: label_kind}
        safetensors_files.write(parts, folder / safetensors_files.MODEL_FILE, information, half)
        write_json_atomic(folder / safetensors_files.CONFIG_FILE, safetensors_files.configuration(parts))
        with open_atomic(folder / "README.md", "w") as f:
            f.write(card(G, Path(dest).name, usage, teacher, scores, label_kind, half))
        image_grid.save_grid(image_grid.generate(G, z, c, 8), folder / "samples.png", (_COLUMNS, _ROWS))
