"""The registry of distillation terms: small optional terms of the generator's loss, one file each.

A term is a class with the arguments `weight` and `comparison` (dgl.comparison.Comparison) that implements
`training.loss.LossTerm`. No torch here: command lines list the names.
"""
import dataclasses
import importlib
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class TermInfo:
    """One distillation term.

    Attributes:
        class_path: module and class below `dgl.kd`, "module.Class".
        help: what it compares, for the help text of the option.
        families: names of the architectures that it works for.
        needs_discriminator: it compares in the features of the teacher's discriminator.
        compares_images: it compares the images of one pass with each other, so it depends on which these are.
        draws_images: it runs the student itself, besides the images that it is given.
    """

    class_path: str
    help: str
    families: tuple[str, ...]
    needs_discriminator: bool = False
    compares_images: bool = False
    draws_images: bool = False

    def load(self) -> Callable[..., Any]:
        """The class of the term."""
        module, _, name = self.class_path.partition(".")
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)


TERMS: dict[str, TermInfo] = {
    "rgb": TermInfo("rgb.RGBTerm", "L1 to the teacher's image", ("stylegan2", "biggan", "stylegan3")),
    "feature": TermInfo("feature.FeatureTerm", "distance in the features of the teacher's D",
                        ("stylegan2", "biggan", "stylegan3"), needs_discriminator=True),
    "torgb": TermInfo("torgb.ToRGBTerm", "L1 to the teacher's images of every resolution", ("stylegan2",),
                     draws_images=True),
    "latent": TermInfo("latent.LatentDirectionTerm", "relations of latent directions", ("stylegan2", "stylegan3"),
                       needs_discriminator=True, compares_images=True, draws_images=True),
    "moments": TermInfo("moments.MomentsTerm", "means and covariances of the features of the teacher's D",
                        ("stylegan2", "biggan", "stylegan3"), needs_discriminator=True, compares_images=True),
    "lpips": TermInfo("lpips.LPIPSTerm", "LPIPS by a TorchScript file", ("stylegan2", "biggan", "stylegan3")),
}


def names(family: str | None = None) -> tuple[str, ...]:
    """The names of all terms, or of those that work for an architecture."""
    return tuple(name for name, info in TERMS.items() if family is None or family in info.families)


def help_text() -> str:
    """All terms and what they compare, as a phrase."""
    texts = [f"{name} ({info.help})" for name, info in TERMS.items()]
    return f"{', '.join(texts[:-1])} or {texts[-1]}"
