"""Distillation terms: small optional addends of the generator's loss beside the teacher's discriminator, one file each.

A term is a class of keyword arguments `weight`, `teacher` (dgl.teacher.Teacher), `G` (the student) and `device`, on the
seam of training.loss.LossTerm. No torch here: command lines list the names.
"""

NAMES = ("rgb", "feature", "latent")
