"""A teacher's own images in place of a data set: endless, and made on the device from (seed, index)."""
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from torch_utils import distributed
from torch_utils.network_types import Generator, image_size
from training.data.dataset import Dataset
from training.data.feed import black_batch
from training.data.generated import images

from . import teacher as teachers

NUM_ITEMS = 1 << 16  # of the data set by index; the feed continues beyond


class TeacherImages(Dataset):
    """The images of a teacher's G_ema as a data set.

    Args:
        teacher: arguments of `dgl.teacher.load`.
        seed: of the images.
        use_labels: give out labels.

    Raises:
        UserError: the teacher cannot be loaded.
    """

    is_generated = True

    def __init__(self, teacher: Mapping[str, Any], seed: int = 0, use_labels: bool = False) -> None:
        self._teacher, self._seed = dict(teacher), seed
        G = self._load()
        shape = [NUM_ITEMS, G.img_channels, *image_size(G)]
        self._c_dim = G.c_dim
        super().__init__("teacher", shape, use_labels=use_labels and G.c_dim > 0)

    @property
    def resolution(self) -> int:
        """The longer side of the images, pixels: networks know their shape by themselves."""
        return max(self.image_shape[1:])

    @property
    def label_kind(self) -> str | None:
        """As the teacher's file says."""
        return teachers.load(**self._teacher, needs_discriminator=False).label_kind if self.has_labels else None

    def _load(self) -> Any:
        return teachers.load(**self._teacher, needs_discriminator=False).G_ema

    def _load_raw_image(self, raw_idx: int) -> np.ndarray:
        img, _ = images(self._load(), self._seed, [raw_idx])
        return img[0].cpu().numpy()

    def _load_raw_labels(self) -> np.ndarray | None:
        return np.arange(NUM_ITEMS) % self._c_dim if self._c_dim else None

    def make_feed(
        self, batch_size: int, seed: int, device: torch.device, state: Mapping[str, Any] | None
    ) -> "TeacherFeed":
        """The stream of these images for training; see TeacherFeed."""
        G = self._load().to(device)
        return TeacherFeed(G, batch_size, self._seed, device, self.label_dim, state)


class TeacherFeed:
    """Batches of this rank: image number i of the stream goes to rank i mod R, so that it is the same for any R.

    Args:
        G: the teacher's generator on the device.
        batch_size: images per batch over all ranks.
        seed: of the images.
        device: where batches go.
        label_dim: size of the labels; 0 gives none.
        state: `state_dict()` of an earlier feed to resume.
    """

    def __init__(
        self,
        G: Generator,
        batch_size: int,
        seed: int,
        device: torch.device,
        label_dim: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._G, self._batch_size, self._seed = G, batch_size, seed
        self._device, self._label_dim = device, label_dim
        self._position = 0 if state is None else int(state["position"])

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The next images [n, C, H, W], float32 in [-1, 1], and labels [n, c_dim] of this rank."""
        ranks = distributed.world_size()
        indices = range(self._position + distributed.rank(), self._position + self._batch_size, ranks)
        self._position += self._batch_size
        img, c = images(self._G, self._seed, indices)
        return img.to(torch.float32) / 127.5 - 1, c[:, : self._label_dim]

    def skip(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Passes over the next batch without making it: black images [n, C, H, W], and labels of zeros [n, c_dim]."""
        self._position += self._batch_size
        shape = (self._G.img_channels, *image_size(self._G))
        return black_batch(self._batch_size // distributed.world_size(), shape, self._label_dim, self._device)

    def random_labels(self, count: int) -> torch.Tensor:
        """Labels [count, c_dim] of uniformly drawn classes."""
        if self._label_dim == 0:
            return torch.zeros([count, 0], device=self._device)
        drawn = torch.randint(self._label_dim, [count])
        return torch.nn.functional.one_hot(drawn, self._label_dim).float().to(self._device)

    def state_dict(self, num_used: int) -> dict[str, Any]:
        """The position after `num_used` images of all ranks since the beginning."""
        return {"position": num_used}
