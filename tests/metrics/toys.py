"""Small stand-ins: a generator, a detector file, and a data set."""
from pathlib import Path
from typing import Any

import torch

from metrics import torchscript
from metrics.small_detector import SmallDetector
from tests.helpers import random_images, write_images


class ToyMapping(torch.nn.Module):
    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_ws: int):
        super().__init__()
        self.num_ws = num_ws
        self.fc = torch.nn.Linear(z_dim + c_dim, w_dim)

    def forward(self, z: torch.Tensor, c: torch.Tensor, truncation_psi: float = 1) -> torch.Tensor:
        w = self.fc(torch.cat([z, c], dim=1)) * truncation_psi
        return w.unsqueeze(1).repeat(1, self.num_ws, 1)


class ToySynthesis(torch.nn.Module):
    def __init__(self, w_dim: int, img_channels: int, img_resolution: int):
        super().__init__()
        self.img_shape = (img_channels, img_resolution, img_resolution)
        self.fc = torch.nn.Linear(w_dim, img_channels * img_resolution**2)
        self.block = torch.nn.Module()
        self.block.register_buffer("noise_const", torch.zeros(img_resolution, img_resolution))

    def forward(self, ws: torch.Tensor, noise_mode: str = "random", force_fp32: bool = False) -> torch.Tensor:
        img = self.fc(ws.mean(dim=1)).reshape(-1, *self.img_shape)
        noise = torch.randn_like(img) if noise_mode == "random" else self.block.noise_const
        return img + 0.1 * noise


class ToyGenerator(torch.nn.Module):
    """Linear from end to end, with StyleGAN2's interface."""

    def __init__(self, z_dim: int = 8, c_dim: int = 0, img_resolution: int = 16, img_channels: int = 3, seed: int = 0):
        super().__init__()
        torch.manual_seed(seed)
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, 8, 4
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.mapping = ToyMapping(z_dim, c_dim, self.w_dim, self.num_ws)
        self.synthesis = ToySynthesis(self.w_dim, img_channels, img_resolution)

    def forward(self, z: torch.Tensor, c: torch.Tensor, truncation_psi: float = 1, **synthesis: Any) -> torch.Tensor:
        return self.synthesis(self.mapping(z, c, truncation_psi), **synthesis)


def write_detector(path: Path, seed: int = 0) -> str:
    """An untrained detector as a TorchScript file; returns its path."""
    torch.manual_seed(seed)
    with open(path, "wb") as file:
        torchscript.save(torchscript.script(SmallDetector().eval()), file)
    return str(path)


def write_dataset(folder: Path, num: int = 24, side: int = 16, num_classes: int = 0) -> dict[str, Any]:
    """Random images in a folder, with labels if there are classes; returns the arguments of the data set."""
    labels = [i % num_classes for i in range(num)] if num_classes else None
    write_images(folder, random_images(num, side), labels)
    return {
        "class_name": "training.dataset.ImageFolderDataset",
        "path": str(folder),
        "use_labels": bool(num_classes),
        "max_size": num,
        "xflip": False,
    }
