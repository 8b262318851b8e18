"""What the examples share: the data, the teacher, how the term joins an optimisation, and the command line."""
import dataclasses
import gzip
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from dgl import teacher as teachers
from dgl.teacher_term import TeacherDiscriminatorTerm
from dnnlib.cli import Command
from dnnlib.errors import UserError
from dnnlib.files import check_writable_dir
from training.loss import GenBatch

DATA = "demo/data/t10k-images-idx3-ubyte.gz"
TEACHER = "demo/teacher/fmnist32.pkl"
RESOLUTION = 32
LEVELS = 256  # of grey
BATCH = 32
NUM_SAMPLES = 256  # that are scored; the first of them are drawn

Term = TeacherDiscriminatorTerm


@dataclasses.dataclass(frozen=True)
class Example:
    """A kind of model that a teacher can guide.

    Attributes:
        name: of the model.
        weight: λ if none is given.
        prepare: images [N, 1, 32, 32] in [-1, 1] → what the model is trained on, [N, ...].
        shown: the same → images of the teacher's size.
        train: (data, term, steps) → a trained model.
        draw: (model, count) → images [count, 1, 32, 32] in [-1, 1].
        measure: (model, data) → its own loss by name, of the first thousand.
    """

    name: str
    weight: float
    prepare: Callable[[torch.Tensor], torch.Tensor]
    shown: Callable[[torch.Tensor], torch.Tensor]
    train: Callable[[torch.Tensor, Term, int], Any]
    draw: Callable[[Any, int], torch.Tensor]
    measure: Callable[[Any, torch.Tensor], dict[str, float]]

    def run(
        self, data: torch.Tensor, term: Term, steps: int, seed: int, num_samples: int = NUM_SAMPLES
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Trains a model from a seed on images [N, 1, 32, 32].

        Returns:
            Its samples [num_samples, 1, 32, 32], and what there is to say about it.
        """
        torch.manual_seed(seed)
        start = time.monotonic()
        pictures = self.prepare(data)
        model = self.train(pictures, term, steps)
        with torch.no_grad():
            samples = torch.cat([self.draw(model, len(part)) for part in torch.arange(num_samples).split(NUM_SAMPLES)])
            own = self.measure(model, pictures[:1000])
        return samples, {
            "model": self.name, "dgl_weight": term.weight, "steps": steps, "seed": seed,
            **{name: round(value, 3) for name, value in own.items()},
            "teacher_logit_on_samples": round(realism(term, samples[:NUM_SAMPLES]), 3),
            "teacher_logit_on_reals": round(realism(term, self.shown(pictures[:NUM_SAMPLES])), 3),
            "seconds": round(time.monotonic() - start, 1),
        }  # fmt: skip


def command(example: Example, text: str) -> click.Command:
    """The command line of an example: trains without and with the term, and prints one JSON line for each."""

    def main(data: str, teacher: str, dgl_weight: float, steps: int, images: int, seed: int, outdir: str) -> None:
        check_options(dgl_weight, outdir)
        pictures = load_images(data, images)
        for weight in (0.0, dgl_weight):
            samples, row = example.run(pictures, teacher_term(teacher, weight), steps, seed)
            save_grid(samples[:64], Path(outdir) / f"{example.name}-lambda{weight:g}.png")
            click.echo(json.dumps(row))

    main.__doc__ = text
    count = click.IntRange(min=1)
    options = [
        click.option("--data", default=DATA, show_default=True, help="Images as an IDX file.", metavar="PATH"),
        click.option("--teacher", default=TEACHER, show_default=True, metavar="PKL",
                     help="Whose discriminator guides."),
        click.option("--dgl-weight", type=click.FloatRange(min=0), default=example.weight, show_default=True,
                     help="λ."),
        click.option("--steps", type=count, default=400, show_default=True, help=f"Steps of {BATCH} images."),
        click.option("--images", type=click.IntRange(min=BATCH), default=4000, show_default=True,
                     help="Images to train on."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of weights, batches and latents."),
        click.option("--outdir", default="example-out", show_default=True, metavar="DIR",
                     help="Where the samples go."),
    ]
    for option in reversed(options):
        main = option(main)
    return click.command(cls=Command)(main)


def check_options(dgl_weight: float, outdir: str) -> None:
    """What need not wait until a model is trained.

    Raises:
        UserError: λ is not finite, or the folder cannot be written.
    """
    if not math.isfinite(dgl_weight):
        raise UserError(f"--dgl-weight: expected a finite number of at least 0, found {dgl_weight}")
    check_writable_dir(outdir, "--outdir")


def load_images(path: str, count: int) -> torch.Tensor:
    """The first images of an MNIST-like IDX file (.gz), padded to 32 px, [N, 1, 32, 32] in [-1, 1].

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except OSError as error:
        raise UserError(f"--data: {path}: {error.strerror or error}; pass an *-images-idx3-ubyte.gz") from None
    magic, num, height, width = np.frombuffer(content[:16], dtype=">i4").tolist() if len(content) >= 16 else [0] * 4
    if magic != 0x803 or height > RESOLUTION or width > RESOLUTION or len(content) != 16 + num * height * width:
        raise UserError(f"--data: {path}: expected images of up to 32x32 in IDX format, found something else")
    images = np.frombuffer(content, dtype=np.uint8, offset=16).reshape(num, 1, height, width)[:count]
    rows, columns = RESOLUTION - height, RESOLUTION - width
    padding = ((0, 0), (0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2))
    return torch.from_numpy(np.pad(images, padding)).float() / 127.5 - 1


def halved(img: torch.Tensor) -> torch.Tensor:
    """[N, 1, 32, 32] → [N, 1, 16, 16]."""
    return F.avg_pool2d(img, 2)


def doubled(img: torch.Tensor) -> torch.Tensor:
    """[N, 1, 16, 16] → [N, 1, 32, 32], as the teacher's images are."""
    return F.interpolate(img, scale_factor=2, mode="bilinear", align_corners=False)


def dequantized(x: torch.Tensor) -> torch.Tensor:
    """Images of any shape with uniform noise of one grey level, which keeps a density finite."""
    return x + (torch.rand_like(x) - 0.5) * (2 / LEVELS)


def bits_per_dim(log_prob: torch.Tensor, dims: int) -> float:
    """Of log-densities in nats, [N], of images in [-1, 1] with so many dimensions: of one grey level of LEVELS."""
    return -float(log_prob.mean()) / dims / math.log(2) + math.log2((LEVELS - 1) / 2)


def teacher_term(path: str, weight: float) -> TeacherDiscriminatorTerm:
    """The term that leads any generator of images of the teacher's size: λ · softplus(-D_T(image)).

    Raises:
        UserError: there is no such teacher, or it is not one for grey images of 32 px without labels.
    """
    teacher = teachers.load(path)
    D = teacher.D
    if (D.img_resolution, D.img_channels, D.c_dim) != (RESOLUTION, 1, 0):
        raise UserError(f"--teacher: expected one for grey images of {RESOLUTION} px without labels; {path} is for "
                        f"{D.img_channels} channel(s), {D.img_resolution} px and labels of size {D.c_dim}")
    return TeacherDiscriminatorTerm([teacher.D.eval().requires_grad_(False)], weight=weight)


def costs(term: Term, img: torch.Tensor, cur_nimg: int) -> torch.Tensor:
    """The term of each image, [N]; 0 if its weight is 0.

    The term looks at images and labels alone, so the latents of a GenBatch stay empty.
    """
    none = img.new_zeros([len(img), 0])
    loss = term(GenBatch(z=none, c=none, ws=none, img=img, img_aug=img, cur_nimg=cur_nimg))
    return img.new_zeros([len(img)]) if loss is None else loss


def guidance(term: Term, img: torch.Tensor, cur_nimg: int) -> torch.Tensor:
    """The mean of the term over a batch of images [N, 1, 32, 32]; 0 if its weight is 0."""
    return costs(term, img, cur_nimg).mean()


@torch.no_grad()
def realism(term: TeacherDiscriminatorTerm, img: torch.Tensor) -> float:
    """The teacher's mean logit on images, in whole batches because of its minibatch statistics; higher is more real."""
    img = img[: len(img) // BATCH * BATCH]
    return float(term.discriminators[0](img, img.new_zeros([len(img), 0])).mean())


def save_grid(img: torch.Tensor, path: Path, columns: int = 8) -> None:
    """Images [N, C, H, W] as one PNG."""
    pixels = (img.detach().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    rows = [torch.cat(list(row), dim=2) for row in pixels.split(columns)]
    picture = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(path)
