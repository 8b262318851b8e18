"""The inputs of a metric, and the record of how its numbers were computed."""
import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dnnlib.errors import UserError
from dnnlib.progress import Progress
from dnnlib.util import EasyDict, construct_class_by_name
from metrics.detector import Detector, DetectorSpec, choose, load
from metrics.shared_features import SharedFeatures
from torch_utils import distributed
from torch_utils.network_types import Generator, check_square

RESOLUTION_OF_SMALL_BATCHES = 256  # px; from here on few images at a time, for their memory
_DATA_LOADER_WORKERS = 3


@dataclasses.dataclass(frozen=True)
class Reference:
    """The network that a generator is compared with.

    Attributes:
        name: of its file, and sha256 of its content, for the record.
        G: generator.
        D: discriminator whose features measure perceptual distances; None is none.
    """

    name: str
    sha256: str
    G: Generator
    D: Any = None


class MetricOptions:
    """Inputs and settings of one metric run. Every rank makes its own, with equal settings.

    Args:
        G: generator, called as G(z=[N, z_dim], c=[N, c_dim], **G_kwargs); needs img_resolution and img_channels too.
        G_kwargs: further arguments of each call, for example truncation_psi.
        dataset_kwargs: class_name and arguments of the data set with the real images.
        images_kwargs: the same of a data set whose images take the place of generated ones; None generates them.
        num_gpus: number of ranks; None is what torch_utils.distributed says. Any other number is an error.
        rank: this process's number, likewise.
        device: where to run; None is this rank's GPU, or the CPU if there is none.
        cache: keep the statistics of the real images on disk, and use those found there.
        num_gen: number of generated images (or pairs) instead of the metric's own.
        num_real: at most this many real images instead of the metric's own limit.
        detectors: paths or URLs that replace the published detectors; `metrics.detector.choose` says which.
        seed: of everything random, 0..2^32-1.
        batch_gen: images per generator call; None is 4 from 256 px on, else 32.
        verbose: show progress on stderr (rank 0).
        reference: the network that the metric `agreement` compares with.
        shared: features that metrics of the same network, data sets and settings have in common; None: none.

    Attributes:
        protocol: how the numbers were computed; filled while the metric runs.
        comparable: whether the numbers follow the published protocol; false as soon as anything differs.
    """

    def __init__(
        self,
        *,
        G: Any = None,
        G_kwargs: Mapping[str, Any] | None = None,
        dataset_kwargs: Mapping[str, Any] | None = None,
        images_kwargs: Mapping[str, Any] | None = None,
        num_gpus: int | None = None,
        rank: int | None = None,
        device: torch.device | str | None = None,
        cache: bool = True,
        num_gen: int | None = None,
        num_real: int | None = None,
        detectors: Sequence[str | DetectorSpec] = (),
        seed: int = 0,
        batch_gen: int | None = None,
        verbose: bool = False,
        reference: Reference | None = None,
        shared: SharedFeatures | None = None,
    ):
        self.G = G
        self.G_kwargs = EasyDict(G_kwargs or {})
        self.dataset_kwargs = EasyDict(dataset_kwargs or {})
        self.images_kwargs = None if images_kwargs is None else EasyDict(images_kwargs)
        self.num_gpus = distributed.world_size()
        self.rank = distributed.rank()
        if num_gpus not in (None, self.num_gpus) or rank not in (None, self.rank):
            raise ValueError(
                f"metric options: expected rank {rank} of {num_gpus}, but torch_utils.distributed runs rank"
                f" {self.rank} of {self.num_gpus}; call distributed.init() first"
            )
        self.device = torch.device(device) if device is not None else _default_device(self.rank)
        self.cache = cache
        self.num_gen = num_gen
        self.num_real = num_real
        self.detectors = detectors
        self.seed = seed
        self.batch_gen = batch_gen
        self.verbose = verbose
        self.reference = reference
        self.shared = shared
        self.protocol: dict[str, Any] = {"seed": seed, "device": self.device.type, "torch": torch.__version__}
        self.comparable = True

    def load_detector(self, default: DetectorSpec) -> Detector:
        """Loads the detector to use in place of `default`, records it, and returns it."""
        detector = load(choose(default, self.detectors), self.device, self.verbose)
        self.protocol["detector"] = {"name": detector.name, "sha256": detector.sha256}
        self.comparable &= detector.sha256 == default.sha256
        return detector

    def result_key(self, official: str, generic: str, detector: Detector, default: DetectorSpec) -> str:
        """The usual name if the published detector was used, else one that names the detector that was."""
        return official if detector.sha256 == default.sha256 else f"{generic}@{detector.name}"

    def count_gen(self, usual: int, at_least: int) -> int:
        """How many images to generate for a metric that usually takes `usual`; recorded.

        Raises:
            UserError: fewer than the metric needs.
        """
        num = usual if self.num_gen is None else self.num_gen
        if num < at_least:
            raise UserError(f"this metric needs at least {at_least} generated images, found {num}", "num_gen")
        self.protocol["num_gen"] = num
        self.comparable &= num == usual
        return num

    def count_real(self, usual: int | None, available: int, at_least: int) -> int:
        """How many real images to take for a metric that usually takes up to `usual` (None: all); recorded.

        Raises:
            UserError: there are fewer than the metric needs.
        """
        full = available if usual is None else min(usual, available)
        num = full if self.num_real is None else min(self.num_real, available)
        if num < at_least:
            raise UserError(
                f"this metric needs at least {at_least} real images, found {num} of the {available} that there are",
                "num_real",
            )
        self.protocol["num_real"] = num
        self.comparable &= num == full
        return num

    def generator(self) -> Any:
        """A copy of G for evaluation on the device; what it is and how it is called is recorded.

        Raises:
            ValueError: G is None.
            UserError: its images have neither 1 nor 3 channels, or there are images in its place.
        """
        if self.images_kwargs is not None:
            raise UserError("this metric needs a network, it cannot be computed from images; pass `networks`", "images")
        if self.G is None:
            raise ValueError("metric options: this metric needs a generator, found G=None")
        if self.G.img_channels not in (1, 3):
            raise UserError(f"metrics: expected a generator of 1 or 3 image channels, found {self.G.img_channels}")
        net = copy.deepcopy(self.G).eval().requires_grad_(False).to(self.device)
        dtypes = {str(p.dtype).removeprefix("torch.") for p in net.parameters()}
        self.protocol |= {"G_kwargs": dict(self.G_kwargs), "dtype": "+".join(sorted(dtypes))}
        self.comparable &= not self.G_kwargs
        return net

    def gen_batch(self) -> int:
        """Images per generator call; recorded, because random noise depends on it."""
        large = self.G is not None and self.G.img_resolution >= RESOLUTION_OF_SMALL_BATCHES
        batch = self.batch_gen or (4 if large else 32)
        self.protocol["batch_gen"] = batch
        return batch

    def dataset(self, **overrides: Any) -> Any:
        """The data set that dataset_kwargs describe, with some arguments replaced.

        Raises:
            UserError: there is none, or the network's images are not square, as those of a data set are.
        """
        if "class_name" not in self.dataset_kwargs:
            raise UserError("metrics: this metric needs a data set; pass `data`")
        if self.G is not None:
            check_square(self.G, "a comparison with a data set", "metrics")
        return construct_class_by_name(**(self.dataset_kwargs | overrides))

    def loader_kwargs(self) -> dict[str, Any]:
        """Data loader settings: workers and pinned memory pay off only where a GPU waits for the images."""
        if self.device.type != "cuda":
            return {"num_workers": 0}
        return {"num_workers": _DATA_LOADER_WORKERS, "pin_memory": True, "prefetch_factor": 2}

    def images(self) -> Any:
        """The data set that images_kwargs describe; recorded."""
        assert self.images_kwargs is not None
        dataset = construct_class_by_name(**self.images_kwargs)
        self.protocol["images"] = {"name": dataset.name, "sha256": dataset.content_hash()}
        return dataset

    def progress(self, total: int, desc: str) -> Progress:
        """A progress bar that is silent unless verbose, and on all ranks but the first."""
        return Progress(total, desc, unit="img", enabled=None if self.verbose and self.rank == 0 else False)


def _default_device(rank: int) -> torch.device:
    return torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else torch.device("cpu")
