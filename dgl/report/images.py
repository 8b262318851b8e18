"""Sections that compare images: grids, differences, agreement, rows per class, nearest training images."""
from collections.abc import Mapping

import numpy as np
import scipy.cluster.vq
import torch

from dnnlib.errors import UserError
from metrics.metric_main import calc_metric
from metrics.options import Reference
from torch_utils.network_types import Discriminator, Generator, check_square

from . import drawing
from .labels import Choices
from .samples import affordable, generated, grid_inputs, shown, small, tiled

TRUNCATIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
PAIRS = 128  # of images for the agreement, up to 64 px
PER_CLASS = 16  # images of every class in the table, up to 64 px
NEAREST = 12  # images with their nearest neighbours
MAX_REAL = 5000  # training images among which they are looked for

_KINDS = {"psnr": "PSNR, dB", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "distance@D": "distance by the teacher's D"}


def grids(generators: Mapping[str, Generator], choices: Choices | None = None) -> str:
    """Grids on the same latents, one per truncation and network, under a slider."""
    can_truncate = all(not hasattr(G, "mapping") or G.mapping.w_avg is not None for G in generators.values())
    steps = TRUNCATIONS if can_truncate else (1.0,)
    slider = (f'<label>Truncation <output id="psi-text">1</output><input id="psi" type="range" min="0" '
              f'max="{len(steps) - 1}" step="1" value="{len(steps) - 1}"></label>')
    parts = [slider if can_truncate else "<p>These networks keep no average w, which truncation needs.</p>"]
    inputs = grid_inputs(next(iter(generators.values())), choices=choices)
    if inputs.classes is not None:
        names = ", ".join(inputs.classes) if choices is None else "; ".join(inputs.classes)
        parts.append(f"<p>A row for each of the {'classes' if choices is None else 'labels'} {names}.</p>")
    for name, G in generators.items():
        pictures = []
        for step, psi in enumerate(steps):
            images = shown(generated(G, inputs.z, inputs.c, psi))
            hidden = {} if psi == 1 else {"hidden": "hidden"}
            pictures.append(drawing.picture(
                tiled(images, inputs.rows), f"images of {name}, truncation {psi}", images.shape[1],
                data_step=str(step), data_psi=str(psi), **hidden))
        parts.append(drawing.figure(name, "".join(pictures)))
    return "".join(parts)


def differences(generators: Mapping[str, Generator], choices: Choices | None = None) -> str:
    """Heat maps of the difference from the teacher, the first network, on the same latents, and its mean."""
    teacher, *_ = generators.values()
    inputs = grid_inputs(teacher, choices=choices)
    reference = generated(teacher, inputs.z, inputs.c).astype(np.float64)
    parts = []
    for name, G in list(generators.items())[1:]:
        errors = np.abs(generated(G, inputs.z, inputs.c) - reference).mean(axis=3) / 255
        maps = shown(np.stack([drawing.heat_map(np.minimum(error * 2, 1)) for error in errors]))
        caption = f"{name}: mean {errors.mean() * 255:.1f} grey levels; white is half the range or more"
        picture = drawing.picture(tiled(maps, inputs.rows), f"differences of {name}", maps.shape[1])
        parts.append(drawing.figure(caption, picture))
    return "".join(parts)


def agreement(generators: Mapping[str, Generator], D: Discriminator | None) -> str:
    """The metric `agreement` of every network with the teacher, the first; `D` is the teacher's, or None."""
    teacher, *_ = generators.values()
    device = next(teacher.parameters()).device
    number = affordable(teacher.img_resolution, PAIRS, 16)
    results = {
        name: calc_metric("agreement", G=G, reference=Reference("teacher", "", teacher, D), num_gen=number,
                          device=device)["results"]
        for name, G in list(generators.items())[1:]
    }
    keys = list(next(iter(results.values())))
    head = ["network", *(_KINDS[key.removeprefix("agreement_")] for key in keys)]
    rows = [[name, *(f"{values[key]:.4g}" for key in keys)] for name, values in results.items()]
    without = "" if D is not None else " The teacher's file has no discriminator to measure a perceptual distance with."
    return drawing.table(head, rows) + f"<p>Of {number} pairs of images with the same latents and classes.{without}</p>"


def classes(generators: Mapping[str, Generator], choices: Choices | None = None) -> str:
    """A row per class: every network's difference from the teacher, the first, and how much the images vary.

    The variation is the mean distance of a class's images from their mean, in 8x8 pixels, in percent of the teacher's.
    """
    teacher, *_ = generators.values()
    inputs = grid_inputs(teacher, affordable(teacher.img_resolution, PER_CLASS, 4), choices)
    assert inputs.classes is not None
    reference = generated(teacher, inputs.z, inputs.c)
    shape = (inputs.rows, inputs.columns)
    head, columns = ["class"], [inputs.classes]
    for name, G in list(generators.items())[1:]:
        images = generated(G, inputs.z, inputs.c)
        errors = np.abs(images.astype(np.float64) - reference).reshape(*shape, -1).mean(axis=(1, 2))
        whole, own = (_variation(small(of).reshape(*shape, -1)) for of in (reference, images))
        head += [f"{name}: grey levels from the teacher", f"{name}: variation"]
        columns.append([f"{error:.1f}" for error in errors])
        columns.append([f"{100 * b / a:.0f} %" if a else "-" for a, b in zip(whole, own)])
    text = f"<p>Of {inputs.columns} images per class; their variation is in percent of the teacher's.</p>"
    return drawing.table(head, list(zip(*columns))) + text


def _variation(vectors: np.ndarray) -> np.ndarray:
    """Mean distance of vectors [classes, images, F] from their class's mean, [classes]."""
    return np.linalg.norm(vectors - vectors.mean(axis=1, keepdims=True), axis=2).mean(axis=1)


def nearest(student: Generator, data: str, choices: Choices | None = None) -> str:
    """The student's images above the training images that are nearest to them in 8x8 pixels.

    Raises:
        UserError: the data cannot be read or are of another size.
    """
    from training.dataset import ImageFolderDataset

    check_square(student, "a comparison with training images", "data")
    dataset = ImageFolderDataset(path=data)
    shape = [student.img_channels, student.img_resolution, student.img_resolution]
    if list(dataset.image_shape) != shape:
        raise UserError(f"expected images {shape}, found {list(dataset.image_shape)} in {data}", field="data")
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MAX_REAL)).round().astype(int))
    real = np.concatenate([small(dataset[i][0].transpose(1, 2, 0)[None]) for i in chosen])
    inputs = grid_inputs(student, NEAREST, choices)
    rows = torch.linspace(0, len(inputs.z) - 1, NEAREST).round().long()  # of all classes
    fake = generated(student, inputs.z[rows], inputs.c[rows])
    index, _ = scipy.cluster.vq.vq(small(fake), real)
    pairs = np.concatenate([fake, np.stack([dataset[chosen[i]][0].transpose(1, 2, 0) for i in index])])
    images = shown(pairs)
    picture = drawing.picture(tiled(images, 2), "images above their nearest neighbours", images.shape[1])
    return f"<p>Among {len(chosen)} training images.</p>" + picture
