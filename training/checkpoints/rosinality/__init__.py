"""Checkpoints of rosinality's StyleGAN2 code and its relatives: dictionaries of state dicts under names of their own.

Values are the same as in our networks; only names and numbers of axes differ. Widths are read from the tensors, so
students of other pruning methods in this layout load too. docs/checkpoints.md says what cannot be expressed.
"""
from . import layout
from .layout import KEYS, ROLES
from .reading import build, reads, roles
from .writing import save, state_dict

__all__ = ["KEYS", "ROLES", "build", "layout", "reads", "roles", "save", "state_dict"]
