"""Channel scores: one small file each, a function from a network and options to a score per channel of every set.

No torch here: command lines list the names.
"""
NAMES = ("first", "random", "l1", "content", "diversity", "reconstruct", "slimming")
DISCRIMINATOR_SCORES = ("first", "random", "l1")  # those that need neither latents nor styles
RECONSTRUCTED = ("training.networks.Generator", "training.networks_stylegan3.Generator")  # classes for `reconstruct`
REFINEMENTS = ("none", "svs")  # of a sliced generator, after any score
