"""Torch helpers that know nothing about GANs: persistence, checkpoints, statistics, distribution, custom ops."""
