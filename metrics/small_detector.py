"""A small convolutional feature detector with the calling convention of the metric detectors.

It exists because the published detectors must be downloaded. Scores made with it are comparable only with
scores made with the same file, which is why result keys carry its name.
"""
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

STAGES = ((16, 1), (32, 2), (32, 1), (48, 2), (48, 1), (80, 2))  # (output channels, stride) of each 3x3 convolution


class ConvStage(nn.Module):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        return F.relu(self.norm(self.conv(x)))

    def fold_norm(self) -> None:
        """Moves the running normalisation into the convolution. Only for a trained stage in evaluation mode."""
        self.conv = nn.utils.fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()  # type: ignore[assignment]


class SmallDetector(nn.Module):
    """Classifier of 32 px greyscale images whose inner activations serve as features.

    Call forms, as the metrics use them (images are N x 3 x H x W or N x 1 x H x W, any dtype, values 0..255):
        (images, return_features=True) -> [N, feature_dim], the pooled activations before the classifier;
        (images) -> [N, num_classes], class probabilities; no_output_bias=True leaves the classifier's bias out;
        (images, resize_images=False, return_lpips=True) -> [N, K]; the squared Euclidean distance of two such vectors
            is an unweighted perceptual distance: unit-normalised activations of every stage, averaged over positions
            (Zhang et al. 2018, equation 1, all weights 1).
    Colour is averaged away. Images are resized to 32 px (bilinear, antialiased) unless resize_images is false.
    """

    resolution: Final[int] = 32
    distance_eps: Final[float] = 1e-8  # keeps the direction of an all-zero activation finite

    def __init__(self, num_classes: int = 10):
        super().__init__()
        stages = []
        in_channels = 1
        for out_channels, stride in STAGES:
            stages.append(ConvStage(in_channels, out_channels, stride))
            in_channels = out_channels
        self.stages = nn.ModuleList(stages)
        self.classifier = nn.Linear(in_channels, num_classes)

    def logits(self, grey: torch.Tensor) -> torch.Tensor:
        """Class scores [N, num_classes] of prepared images [N, 1, 32, 32] in -1..1; what training optimises."""
        x = grey
        for stage in self.stages:
            x = stage(x)
        return self.classifier(x.mean(dim=[2, 3]))

    def resize_matrix(self, size: int, device: torch.device) -> torch.Tensor:
        """The weights [resolution, size] of antialiased linear interpolation from `size` pixels.

        Written out, because a scripted `interpolate` carries calls to whatever operators its torch version has, and
        then does not load in older ones.
        """
        scale = size / self.resolution
        centres = (torch.arange(self.resolution, device=device) + 0.5) * scale - 0.5
        distances = (torch.arange(size, device=device).unsqueeze(0) - centres.unsqueeze(1)).abs()
        weights = (1 - distances / max(scale, 1.0)).clamp(min=0)
        return weights / weights.sum(dim=1, keepdim=True)

    def fold_norms(self) -> None:
        """Turns a trained detector into plain convolutions, the form in which it is exported."""
        for stage in self.stages:
            stage.fold_norm()  # type: ignore[operator]

    def forward(
        self,
        img: torch.Tensor,
        return_features: bool = False,
        no_output_bias: bool = False,
        resize_images: bool = True,
        return_lpips: bool = False,
    ) -> torch.Tensor:
        """Images [N, C, H, W], 0..255, to what the call form of the class's text says."""
        x = img.to(torch.float32).mean(dim=1, keepdim=True) / 127.5 - 1
        if resize_images:
            x = self.resize_matrix(x.shape[2], x.device) @ x @ self.resize_matrix(x.shape[3], x.device).t()
        distance_vectors: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x)
            if return_lpips:
                unit = x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + self.distance_eps)
                distance_vectors.append((unit / (x.shape[2] * x.shape[3]) ** 0.5).flatten(1))
        if return_lpips:
            return torch.cat(distance_vectors, dim=1)
        features = x.mean(dim=[2, 3])
        if return_features:
            return features
        scores = self.classifier(features)
        if no_output_bias:
            scores = scores - self.classifier.bias
        return scores.softmax(dim=1)
