"""The page as a whole: sections in order, in one file that loads nothing from elsewhere."""
import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dnnlib.errors import UserError
from dnnlib.files import open_atomic
from torch_utils.network_types import Generator

from . import images, modes, numbers
from .labels import Choices

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>{title}</title><style>
:root {{ color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 70rem; margin: 0 auto; padding: 1rem; }}
label {{ display: block; max-width: 20rem; }} input {{ width: 100%; }}
[hidden] {{ display: none !important; }}
figure {{ display: inline-block; vertical-align: top; margin: .5rem 1rem .5rem 0; max-width: 100%; }}
img {{ max-width: 100%; image-rendering: pixelated; min-width: min(18rem, 100%); display: block; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #8884; }}
.scroll {{ overflow-x: auto; }}
.bar {{ display: flex; flex-wrap: wrap; gap: .75rem; align-items: center; margin: .25rem 0; }}
.bar img {{ min-width: 0; height: 2rem; }} .bar svg {{ flex: none; }}
.bar span:first-child {{ width: 14rem; overflow-wrap: anywhere; }}
.curve {{ width: 20rem; }} svg {{ max-width: 100%; }}
</style></head><body><h1>{title}</h1>
"""

_SCRIPT = """<script>
const slider = document.getElementById("psi");
slider?.addEventListener("input", () => {
  for (const image of document.querySelectorAll("img[data-step]")) {
    image.hidden = image.dataset.step !== slider.value;
    if (!image.hidden) document.getElementById("psi-text").textContent = image.dataset.psi;
  }
});
</script></body></html>
"""


def write(
    dest: str | os.PathLike,
    generators: Mapping[str, Generator],
    D: Any = None,
    run_dir: str | os.PathLike | None = None,
    data: str | None = None,
    title: str = "Student and teacher",
    choices: Choices | None = None,
) -> None:
    """Writes the page.

    Args:
        dest: the HTML file.
        generators: by name, on one device; the first is the teacher, the last the student, between them what was on
            the way.
        D: the teacher's discriminator, for a perceptual distance; None leaves that out.
        run_dir: of the student's training, for scores and curves.
        data: training images, for the student's nearest neighbours.
        title: of the page.
        choices: labels of the rows, in place of the classes.

    Raises:
        UserError: the networks do not fit together, the data cannot be read, or the file cannot be written.
    """
    check_alike(generators)
    teacher, *_, student = generators.values()
    device = next(teacher.parameters()).device.type
    by_title = {
        "Images on the same latents": images.grids(generators, choices),
        "Difference from the teacher": images.differences(generators, choices) + images.agreement(generators, D),
        **({"Classes": images.classes(generators, choices)} if teacher.c_dim else {}),
        "Modes of the teacher": modes.modes(teacher, student, choices=choices),
        "Costs": numbers.costs(generators, device),
        "Channels": numbers.channels(teacher, student),
    }
    if run_dir is not None:
        by_title["Scores"] = numbers.scores(Path(run_dir))
        by_title["Curves of the run"] = numbers.curves(Path(run_dir))
    if data is not None:
        by_title["Nearest training images"] = images.nearest(student, data, choices)
    body = "".join(f"<section><h2>{html.escape(name)}</h2>{text}</section>\n" for name, text in by_title.items())
    with open_atomic(dest, "w") as f:
        f.write(_HEAD.format(title=html.escape(title)) + body + _SCRIPT)


def check_alike(generators: Mapping[str, Generator]) -> None:
    """Checks that all networks make the same kind of images from the same kind of latents as the first.

    Raises:
        UserError: one does not; names it.
    """
    sizes = {name: (G.z_dim, G.c_dim, G.img_resolution, G.img_channels) for name, G in generators.items()}
    expected = next(iter(sizes.values()))
    for name, size in sizes.items():
        if size != expected:
            raise UserError(f"expected the teacher's z_dim, c_dim, img_resolution, img_channels {expected}, "
                            f"found {size}", field=name)
