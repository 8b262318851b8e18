"""Training of the small feature detector: reading the data, the optimisation, and writing the TorchScript file."""
import gzip
import hashlib
import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from dnnlib.files import open_atomic
from dnnlib.progress import Progress
from metrics import torchscript
from metrics.small_detector import SmallDetector
from torch_utils.optimizers import AdamW

IDX_DIMS = {b"\x00\x00\x08\x01": 1, b"\x00\x00\x08\x03": 3}  # magic number (unsigned bytes) -> number of axes
PAD_PX = 2  # 28 -> 32
MAX_SHIFT_PX = 2
EVAL_BATCH = 500


def read_idx(path: Path) -> np.ndarray:
    """Reads a gzipped idx file of unsigned bytes: labels [N] or images [N, H, W]. 

    Raises:
        UserError: the file cannot be read, or is of another kind; names it.
    """
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {path}: {error}", "data") from error
    dims = IDX_DIMS.get(data[:4])
    if dims is None:
        raise UserError(f"{path} is not an idx file of unsigned bytes", "data")
    shape = np.frombuffer(data, dtype=">i4", count=dims, offset=4)
    values = np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dims)
    if values.size != shape.prod():
        raise UserError(f"{path} is cut short: expected {shape.prod()} bytes, found {values.size}", "data")
    return values.reshape(tuple(shape))


def load_split(data_dir: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as float32 [N, 1, 32, 32] in -1..1, padded with black, and labels as int64 [N]."""
    images = read_idx(data_dir / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(data_dir / f"{split}-labels-idx1-ubyte.gz")
    images = np.pad(images, [(0, 0), (PAD_PX, PAD_PX), (PAD_PX, PAD_PX)])
    return torch.from_numpy(images).float().unsqueeze(1) / 127.5 - 1, torch.from_numpy(labels.astype(np.int64))


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirrors half of the images [N, 1, H, W] and shifts each by up to MAX_SHIFT_PX, filling with black."""
    num, _, height, width = images.shape
    flipped = torch.rand(num, generator=generator) < 0.5
    images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, [MAX_SHIFT_PX] * 4, value=-1.0)[:, 0]
    shift = torch.randint(2 * MAX_SHIFT_PX + 1, [2, num, 1, 1], generator=generator)
    rows = shift[0] + torch.arange(height)[:, None]
    cols = shift[1] + torch.arange(width)[None, :]
    return padded[torch.arange(num)[:, None, None], rows, cols].unsqueeze(1)


def train(images: torch.Tensor, labels: torch.Tensor, epochs: int, batch: int, lr: float, seed: int) -> SmallDetector:
    """Trains from scratch with AdamW under a one-cycle learning rate; returns the detector in evaluation mode.

    Args:
        images: float32 [N, 1, 32, 32] in -1..1.
        labels: int64 [N].
        epochs: passes over the images.
        batch: images per step.
        lr: highest learning rate.
        seed: random seed.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = SmallDetector(num_classes=int(labels.max()) + 1)
    opt = AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    num_steps = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=lr, epochs=epochs, steps_per_epoch=num_steps)
    with Progress(epochs * num_steps, "training", unit="step") as bar:
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator)
            for idx in order[: num_steps * batch].split(batch):
                loss = F.cross_entropy(net.logits(augment(images[idx], generator)), labels[idx])
                opt.zero_grad()
                loss.backward()
                opt.step()
                schedule.step()
                bar.update()
    return net.eval()


def accuracy(net: SmallDetector, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images [N, 1, 32, 32] whose most probable class is the label [N]."""
    with torch.no_grad():
        hits = sum(
            int((net.logits(x).argmax(1) == y).sum())
            for x, y in zip(images.split(EVAL_BATCH), labels.split(EVAL_BATCH), strict=True)
        )
    return hits / len(images)


def export(net: SmallDetector, dest: Path) -> str:
    """Writes the detector as TorchScript with the normalisation folded in; returns the file's sha256."""
    net.fold_norms()
    for param in net.parameters():
        param.requires_grad_(False)
    buffer = io.BytesIO()
    torchscript.save(torchscript.script(net), buffer)
    with open_atomic(dest) as file:
        file.write(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()
