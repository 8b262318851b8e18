"""Discriminator-guided compression of trained GANs (DGL-GAN, arXiv:2112.06502), a plugin of the training code."""
from dgl.api import from_pretrained, load

__all__ = ["from_pretrained", "load"]
