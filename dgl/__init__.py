"""Discriminator-guided compression of trained GANs (DGL-GAN, arXiv:2112.06502), a plugin of the training code."""
