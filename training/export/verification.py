"""What smaller weights cost: scores of an ONNX file beside those of the network that it was made from."""
from collections.abc import Sequence
from typing import Any

import torch

from dnnlib.errors import UserError
from metrics.metric_main import calc_metric
from metrics.options import Reference
from torch_utils.network_types import Generator

from . import onnx_file

METRIC = "fid50k_full"
PAIRS = 64  # of images for the agreement


class FileGenerator(torch.nn.Module):
    """An ONNX file in the place of its generator, with the same attributes and the same call.

    Args:
        content: of a file with the inputs z, label and truncation, and float images.
        G: the generator that it was made from.
    """

    def __init__(self, content: bytes, G: Generator) -> None:
        super().__init__()
        self.session = onnx_file.open_session(content)
        self.names = {item.name for item in self.session.get_inputs()}
        self.z_dim, self.c_dim = G.z_dim, G.c_dim
        self.img_resolution, self.img_channels = G.img_resolution, G.img_channels

    def __deepcopy__(self, memo: object) -> "FileGenerator":
        return self  # a session cannot be copied, and nothing changes it

    def forward(self, z: torch.Tensor, c: torch.Tensor | None, truncation_psi: float = 1, **_: object) -> torch.Tensor:
        """Images [N, C, R, R] of z [N, z_dim] and labels c [N, c_dim]."""
        inputs = {"z": z, "label": c, "truncation": torch.tensor(float(truncation_psi))}
        feed = {name: inputs[name].float().numpy() for name in self.names}  # type: ignore[union-attr]
        return torch.from_numpy(self.session.run(["image"], feed)[0])


def fd(G: Generator, file: FileGenerator, data: str, detectors: Sequence[str], num_gen: int) -> dict[str, Any]:
    """Fréchet distances of network and file, by the same protocol, with the constant noise that the file holds.

    Args:
        G: the network.
        file: the file made from it.
        data: path of the real images.
        detectors: in place of the published one; paths or URLs.
        num_gen: generated images.

    Raises:
        UserError: the images or the detector cannot be read.
    """
    dataset = {"class_name": "training.dataset.ImageFolderDataset", "path": data, "resolution": G.img_resolution,
               "use_labels": G.c_dim != 0}
    figures: dict[str, Any] = {}
    for name, network in (("network", G), ("file", file)):
        result = calc_metric(METRIC, G=network, G_kwargs={"noise_mode": "const"}, dataset_kwargs=dataset, device="cpu",
                             detectors=detectors, num_gen=num_gen)
        ((figures["metric"], figures[name]),) = result["results"].items()
        figures["protocol"] = dict(result["protocol"])
    return figures


def agreement(G: Generator, file: FileGenerator, teacher: Reference) -> dict[str, Any]:
    """Agreement of network and file with a teacher on the same latents, by the metric of that name.

    Args:
        G: the network.
        file: the file made from it.
        teacher: its generator, and its discriminator for a perceptual distance, if there is one.

    Returns:
        "network" and "file", each with psnr (dB), ssim or ms_ssim, and distance@D if the teacher has a D; "protocol".

    Raises:
        UserError: the teacher takes other latents or labels, or makes images of another size.
    """
    sizes = [(net.z_dim, net.c_dim, net.img_resolution, net.img_channels) for net in (G, teacher.G)]
    if sizes[0] != sizes[1]:
        raise UserError(f"expected a teacher with z_dim, c_dim, img_resolution, img_channels {sizes[0]}, "
                        f"found {sizes[1]}", field="verify_teacher")
    figures: dict[str, Any] = {}
    for key, network in (("network", G), ("file", file)):
        result = calc_metric("agreement", G=network, reference=teacher, num_gen=PAIRS, device="cpu")
        figures[key] = {name.removeprefix("agreement_"): value for name, value in result["results"].items()}
        figures["protocol"] = dict(result["protocol"])
    return figures
