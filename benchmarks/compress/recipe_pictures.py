"""Pictures of the study of recipes: images of the teacher and of every student for the same latents."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from training.checkpoints.pickles import open_networks
from training.data.generated import latents
from training.data.image_grid import generate, save_grid

from .recipe_table import BUDGETS, CUTS
from .tables import Row

COLUMNS = 12
SEED = 0  # of the latents, and of the trainings


def groups() -> list[str]:
    """The tables that have a picture: those with equal processor time."""
    return [f"{cut}-{budget}" for cut in CUTS for budget in BUDGETS if budget == "time"]


def file_name(name: str, group: str) -> str:
    """The file of a table's picture."""
    return f"{name}-{group}.png"


def shown(rows: Sequence[Row], group: str) -> dict[str, Row]:
    """Title → row of the networks in a table's picture, from top to bottom: the teacher, then students of one seed."""
    first = {row["title"]: row for row in reversed(rows) if row["seed"] == SEED and row["group"] == "reference"}
    return first | {row["title"]: row for row in rows if row["seed"] == SEED and row["group"] == group}


def caption(rows: Sequence[Row], group: str) -> str:
    """What the picture shows."""
    return f"From top to bottom: {'; '.join(shown(rows, group))}. Every column is one latent, the same in all rows."


def draw(rows: Sequence[Row], out: Path, teacher: Path, dest: Path, name: str) -> list[Path]:
    """Writes the picture of every table that has rows.

    Args:
        rows: in the order of the document.
        out: folder of the runs.
        teacher: its pickle.
        dest: folder of the pictures.
        name: of the document.

    Raises:
        UserError: a network is gone.
    """
    paths = []
    dest.mkdir(parents=True, exist_ok=True)
    for group in groups():
        if not any(row["group"] == group for row in rows):
            continue
        lines = [_images(teacher if row["group"] == "reference" else out / row["network"])
                 for row in shown(rows, group).values()]
        paths.append(dest / file_name(name, group))
        save_grid(np.concatenate(lines), paths[-1], (COLUMNS, len(lines)))
    return paths


def _images(path: Path) -> np.ndarray:
    """The images [COLUMNS, C, H, W] of a network; classes take turns."""
    if not path.is_file():
        raise UserError(f"--pictures: {path} is gone; give the command of the study again to train it, with the same "
                        "--out")
    G: Any = open_networks(str(path))["G_ema"].eval()
    return generate(G, *latents(G, SEED, range(COLUMNS)), COLUMNS)
