"""The recipes of --recipe: published ways to compress a generator, and ours, each a row of options. No torch here.

A row consists of default values for this project's own options; options that are given replace them. So every recipe
has the same networks, optimizers and data, and rows differ only in what their papers describe. docs/recipes.md shows
this table.
"""
import dataclasses
from collections.abc import Mapping
from typing import Any

from dnnlib import EasyDict

ALL = ("stylegan2", "stylegan3", "biggan")
STYLE_BASED = ("stylegan2", "stylegan3")
STARTS = ("score", "refine", "refit")  # options that only a slice has


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way to train a student.

    Attributes:
        paper: where it is from.
        summary: what it does, for the help text.
        departs: where this differs from the paper; empty for ours.
        options: option of train.py → value that it has unless it is given.
        distils: it begins with distillation, without data; else with adversarial training.
        families: names of the architectures that it works for.
    """

    paper: str
    summary: str
    departs: str
    options: Mapping[str, Any]
    distils: bool = False
    families: tuple[str, ...] = STYLE_BASED


_PERCEPTUAL = ("The perceptual distance is that in the features of the teacher's discriminator, instead of LPIPS. ")
_IMAGES = (("rgb", 3.0), ("feature", 3.0))
_RELATIONS = (*_IMAGES, ("latent", 30.0))

RECIPES: dict[str, Recipe] = {
    "distil": Recipe(
        paper="this project",
        summary="distillation of the teacher's images without data; adversarial training may follow",
        departs="",
        options={"kd": (("rgb", 1.0), ("feature", 1.0))},
        distils=True,
        families=ALL,
    ),
    "paper": Recipe(
        paper="DGL-GAN, arXiv:2112.06502",
        summary="adversarial training, in which the teacher's D is a second critic",
        departs="It starts from a slice by l1, in one stage; the paper's two stages start from random weights.",
        options={},
        families=ALL,
    ),
    "cagc": Recipe(
        paper="Content-aware GAN compression, CVPR 2021, arXiv:2104.02244",
        summary="slice by content; adversarial training with L1 and perceptual distillation",
        departs=_PERCEPTUAL + "Score and distillation use the whole image; the paper uses the region that a parser "
                              "marks. All consumers of a channel count in the score.",
        options={"score": "content", "dgl_weight": 0.0, "kd": _IMAGES},
        families=ALL,
    ),
    "stylekd": Recipe(
        paper="Mind the gap in distilling StyleGANs, ECCV 2022, arXiv:2208.08840",
        summary="random weights except for the teacher's mapping network, which stays fixed; adversarial training "
                "with L1, perceptual and latent-direction distillation",
        departs=_PERCEPTUAL + "The relations of latent directions are compared in the lowest block of the teacher's "
                              "discriminator. The constant noise is the teacher's too.",
        options={"init": "mapping", "keep_mapping": True, "dgl_weight": 0.0, "kd": _RELATIONS},
    ),
    "dcp": Recipe(
        paper="Diversity-aware channel pruning, CVPR 2024",
        summary="slice by diversity; adversarial training with the distillation terms of stylekd",
        departs=_PERCEPTUAL + "All consumers of a channel count in the score.",
        options={"score": "diversity", "dgl_weight": 0.0, "kd": _RELATIONS},
    ),
    "svs": Recipe(
        paper="SVS, AAAI 2025",
        summary="dcp with a refined slice: square roots of the singular values",
        departs=_PERCEPTUAL + "All consumers of a channel count in the score. Weights keep their norm.",
        options={"score": "diversity", "refine": "svs", "dgl_weight": 0.0, "kd": _RELATIONS},
    ),
    "slimming": Recipe(
        paper="GAN Slimming, ECCV 2020, arXiv:2008.11062",
        summary="slice by channel scales that are trained to be sparse; adversarial training with perceptual "
                "distillation",
        departs=_PERCEPTUAL + "Sparsity is trained before adversarial training, with the weights fixed, and nothing is "
                              "quantised; the paper trains scales and weights together.",
        options={"score": "slimming", "dgl_weight": 0.0, "kd": (("feature", 1.0),)},
        families=("stylegan2",),
    ),
    "nickel": Recipe(
        paper="NICKEL & DiME, ECCV 2024",
        summary="adversarial training with the teacher's D as a second critic, which has weight 1 and is trained "
                "further, and with matching of feature moments",
        departs="Moments are matched in the features of the teacher's discriminator, not in those of foundation "
                "models, and up to the second order. There is no wavelet bridge. It starts from a slice by l1.",
        options={"dgl_weight": 1.0, "teacher_update": True, "kd": (("moments", 1.0),)},
    ),
    "mobile": Recipe(
        paper="MobileStyleGAN, 2021, arXiv:2104.04767",
        summary="random weights except for the teacher's mapping network, which stays fixed; adversarial training "
                "with L1 and perceptual distillation, on the teacher's images as the real ones",
        departs=_PERCEPTUAL + "The student is a narrower network of the teacher's kind; the paper's has wavelets and "
                              "separable convolutions.",
        options={"init": "mapping", "keep_mapping": True, "data": "teacher", "dgl_weight": 0.0,
                 "kd": (("rgb", 1.0), ("feature", 1.0))},
    ),
}


def of(opts: EasyDict) -> Recipe:
    """The recipe of a run's options."""
    return RECIPES[opts.recipe or "distil"]


def apply(opts: EasyDict, given: set[str]) -> None:
    """Sets the options of the recipe that were not given.

    Those of a slice are left out for a student that starts otherwise.
    """
    options = of(opts).options
    starts_otherwise = (opts.init or options.get("init", "slice")) != "slice"
    for name, value in options.items():
        if name not in given and not (starts_otherwise and name in STARTS):
            opts[name] = value


def help_text() -> str:
    """All recipes and what they do, as a phrase."""
    texts = [f"{name} ({row.summary})" for name, row in RECIPES.items()]
    return f"{'; '.join(texts[:-1])}; or {texts[-1]}"
