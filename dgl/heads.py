"""Fresh heads on a frozen discriminator: a second discriminator for the student, on its teacher's features.

As in projected GANs (Sauer et al. 2021, arXiv:2111.01007), with the teacher's discriminator as the feature network.
"""
from typing import Any

import torch

from metrics.perceptual import block_features
from torch_utils.network_types import image_size


class HeadsDiscriminator(torch.nn.Module):
    """One linear head per block of a frozen discriminator; the logit is the mean of the heads over pixels and blocks.

    The weights of a head are w + E c, which is a linear head plus the projection of the features on an embedding of the
    label c (Miyato and Koyama 2018, arXiv:1802.05637); there is no E without labels.

    Only the heads are parameters of this module, and only they are in its state. Their first weights depend on nothing
    but the shapes, so they are the same on every rank; E begins at 0.

    Args:
        D: the frozen discriminator, on its device.
    """

    def __init__(self, D: Any) -> None:
        super().__init__()
        self._trunk = (D,)  # in a tuple: not a part of this module
        param = next(D.parameters())
        with torch.no_grad():
            probe = torch.zeros([1, D.img_channels, *image_size(D)], device=param.device, dtype=param.dtype)
            channels = [x.shape[1] for x in block_features(D, probe)]
        random = torch.Generator().manual_seed(0)
        self.weights = torch.nn.ParameterList(
            torch.randn([c], generator=random).to(param.device) for c in channels)
        labels = D.c_dim
        self.embeddings = torch.nn.ParameterList(
            torch.zeros([labels, c], device=param.device) for c in channels if labels)
        self.bias = torch.nn.Parameter(torch.zeros([], device=param.device))

    def forward(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """Logits [N, 1] of images [N, C, H, W] with labels [N, c_dim]."""
        features = [x.mean(dim=[2, 3]) for x in block_features(self._trunk[0], img)]  # [N, C] of every block
        weights = [w + c @ E for w, E in zip(self.weights, self.embeddings)] if self.embeddings else self.weights
        heads = [(x * w).sum(dim=1) for x, w in zip(features, weights)]
        return (torch.stack(heads).mean(dim=0) + self.bias)[:, None]
