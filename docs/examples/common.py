"""What both examples share: the data, the teacher, and how the term joins an optimisation."""
import gzip
import math
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from dgl import teacher as teachers
from dgl.teacher_term import TeacherDiscriminatorTerm
from dnnlib.errors import UserError
from dnnlib.files import check_writable_dir
from training.loss import GenBatch

DATA = "demo/data/t10k-images-idx3-ubyte.gz"
TEACHER = "demo/teacher/fmnist32.pkl"
RESOLUTION = 32
BATCH = 32


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


def guidance(term: TeacherDiscriminatorTerm, img: torch.Tensor, cur_nimg: int) -> torch.Tensor:
    """The mean of the term over a batch; 0 if its weight is 0.

    The term looks at images and labels alone, so the latents of a GenBatch stay empty.
    """
    none = img.new_zeros([len(img), 0])
    loss = term(GenBatch(z=none, c=none, ws=none, img=img, img_aug=img, cur_nimg=cur_nimg))
    return img.new_zeros([]) if loss is None else loss.mean()


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
