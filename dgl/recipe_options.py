"""The options of distillation and of adversarial training: their rules, their defaults, and the run's configuration.

No torch until a run is configured.
"""
import math
import os
from collections.abc import Callable, Collection
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from dnnlib import EasyDict
from dnnlib.cli import VECTORS, FiniteFloatRange, Fraction01
from training.options import DataInfo, OptionError
from training.run_config import Component, RunConfig

from . import kd, recipes
from .bases import BASES, TEACHER_IMAGES

if TYPE_CHECKING:
    from torch_utils.network_types import Discriminator

DATA = "teacher"  # value of --data: the teacher's own images
KIMG = 50  # length of distillation
BATCH = 16
WARMUP_STEPS = 50
EMA_STEPS = 50
KIMG_PER_TICK = 1
SNAPSHOT_TICKS = 10


class Weights(click.ParamType):
    """Option type: numbers of at least 0 with commas between them, not all 0."""

    name = "list"

    def convert(
        self, value: str | list[float], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[float]:
        """The numbers."""
        if isinstance(value, list):
            return value
        try:
            weights = [float(item) for item in value.split(",")]
        except ValueError:
            weights = [-1.0]
        if not (all(0 <= weight < math.inf for weight in weights) and sum(weights) > 0):
            self.fail(f"expected numbers of at least 0, not all 0, such as 1,1,0.5, found {value!r}", param, ctx)
        return weights


class Widths(click.ParamType):
    """Option type: different fractions below 1 with commas between them."""

    name = "list"

    def convert(
        self, value: str | list[Fraction], param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Fraction]:
        """The fractions, widest first."""
        if isinstance(value, list):
            return value
        widths = [Fraction01().convert(item.strip(), param, ctx) for item in value.split(",")]
        if len(set(widths)) < len(widths) or Fraction(1) in widths:
            self.fail(f"expected different fractions below 1 such as 3/4,1/2,1/4, found {value!r}", param, ctx)
        return sorted(widths, reverse=True)


OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--recipe", help="Default values of other options, after a paper (docs/recipes.md): "
                 f"{recipes.help_text()}.", show_default="distil", type=click.Choice(list(recipes.RECIPES))),
    click.option("--game-kimg", help="With --recipe=distil: length of the adversarial training after distillation, in "
                 "thousands of images of --data, or of the teacher's with --data=teacher.", show_default="0",
                 type=click.IntRange(min=0), metavar="INT"),
    click.option("--game-warmup", help="Length of the beginning of adversarial training in which only D is trained, in "
                 "thousands of images.", show_default="0", type=click.IntRange(min=0), metavar="INT"),
    click.option("--game-kd", help="Factor of the distillation terms in adversarial training after distillation; 0 "
                 "leaves them out.", show_default="1", type=click.FloatRange(min=0), metavar="FLOAT"),
    click.option("--distil-lr", help="Learning rate of distillation.", show_default="0.008, BigGAN: 0.001",
                 type=FiniteFloatRange(min=0, min_open=True), metavar="FLOAT"),
    click.option("--elastic", help="Distil an elastic student, which also works at these fractions of its width, e.g. "
                 "3/4,1/2,1/4; prune_init.py --width extracts them (docs/elastic.md).", type=Widths(),
                 show_default="none", metavar="LIST"),
    click.option("--kd-blocks", help="Weights of the blocks of the teacher's D in --kd=feature, from high to low "
                 "resolution.", show_default="1 each in distillation, else their mean", type=Weights(), metavar="LIST"),
    click.option("--kd-mask", help="Greyscale picture of the image's size; its brightness weighs the pixels in all "
                 "terms of --kd.", show_default="all pixels alike", metavar="PNG"),
    click.option("--kd-lpips", help="TorchScript file of --kd=lpips, such as vgg16.pt.", metavar="[PATH|URL]"),
]
OPTION_NAMES = ("recipe", "game_kimg", "game_warmup", "game_kd", "distil_lr", "elastic", "kd_blocks", "kd_mask",
                "kd_lpips")
_PAPER_ONLY = ("stage1_kimg", "ema_start")
_DISTIL_ONLY = ("game_kimg", "game_warmup", "game_kd", "distil_lr", "elastic")
_GAME_ONLY = ("game_warmup", "game_kd", "keep_mapping", "d_steps", "ema_kimg", "guidance", "dgl_weight", "dgl_ramp",
              "teacher_weights", "teacher_update", "teacher_aug", "glr", "dlr", "gamma", "aug", "augpipe", "p",
              "target", "ada_max")
_FILES_ONLY = ("mirror", "subset")


def is_distilled(opts: EasyDict) -> bool:
    """Whether the options ask for distillation."""
    return recipes.of(opts).distils


def complete(opts: EasyDict, given: set[str]) -> None:
    """Fills in the options of the recipe, and defaults of options that train.py requires or knows other defaults for.

    Raises:
        OptionError: options that need data, without data, or a recipe for networks of another family.
    """
    if BASES[opts.cfg].family not in recipes.of(opts).families:
        raise OptionError("--recipe", f"{opts.recipe} cannot be given together with --cfg={opts.cfg}")
    recipes.apply(opts, given)
    opts.outdir = opts.outdir or "runs"
    if opts.data is None and is_distilled(opts):
        if opts.game_kimg:
            raise OptionError("--game-kimg", "adversarial training needs real images; pass --data=PATH, or "
                                             "--data=teacher for the teacher's own")
        opts.data = DATA
    if opts.data is None:
        raise OptionError("--data", f"--recipe={opts.recipe} is adversarial training, which needs images; pass "
                                    "--data=PATH, or --data=teacher for the teacher's own")
    if opts.data == DATA:
        for name in _FILES_ONLY:
            if name in given:
                raise OptionError(f"--{name}", "can only be given together with --data=PATH")
        if "metrics" not in given:
            opts.metrics = []
        elif opts.metrics and "agreement" not in opts.metrics:  # which train.py knows another way for
            raise OptionError("--metrics", "needs real images; pass --data=PATH, or --metrics=none")
    if not is_distilled(opts):
        return
    if "tick" not in given:
        opts.tick = KIMG_PER_TICK
    if "snap" not in given:
        opts.snap = SNAPSHOT_TICKS


def check(opts: EasyDict, given: set[str]) -> None:
    """Checks options of a run with a teacher that depend on the recipe.

    Raises:
        OptionError: an option that has no effect with this recipe, or that lacks another one.
    """
    terms, recipe = dict(opts.kd or ()), opts.recipe or "distil"
    if opts.init == "scratch" and terms:
        user = "distillation compares" if is_distilled(opts) else f"the distillation terms of --recipe={recipe} compare"
        mapping = " --init=mapping, or" if BASES[opts.cfg].family in recipes.STYLE_BASED else ""
        raise OptionError("--init", f"{user} images of the same w, but scratch gives the student a w of its own; start "
                                    f"from a slice or a student's pickle, or pass{mapping} --recipe=paper")
    if is_distilled(opts):
        _refuse(given, _PAPER_ONLY, "applies to adversarial training from the first step only; pass --recipe=paper too")
        if not opts.game_kimg:
            absent = "applies to adversarial training, which this run does not have; pass --game-kimg=N"
            _refuse(given, [name for name in _GAME_ONLY if name in _DISTIL_ONLY], absent)
            _refuse(given, _GAME_ONLY, f"{absent} or --recipe=paper")
            if len(opts.teacher) > 1:
                raise OptionError("--teacher", "distillation uses one teacher; several can only guide adversarial "
                                               "training: pass --game-kimg=N or --recipe=paper")
        elif opts.game_warmup is not None and opts.game_warmup >= opts.game_kimg:
            raise OptionError("--game-warmup", f"expected less than --game-kimg={opts.game_kimg}, found "
                                               f"{opts.game_warmup}: the generator would never be trained")
        if opts.game_kd is not None and not math.isfinite(opts.game_kd):
            raise OptionError("--game-kd", f"expected a finite number of at least 0, found {opts.game_kd}")
        if not any(terms.values()):
            raise OptionError("--kd", "all weights are 0, so nothing would be distilled")
    else:
        _refuse(given, ("game_kimg",), f"cannot be given together with --recipe={recipe}, whose length is --kimg")
        _refuse(given, _DISTIL_ONLY, f"cannot be given together with --recipe={recipe}")
    if opts.elastic is not None:
        _check_elastic(opts, terms)
    if opts.kd_blocks is not None and "feature" not in terms:
        raise OptionError("--kd-blocks", "can only be given together with --kd=feature")
    if opts.kd_mask is not None and not terms:
        raise OptionError("--kd-mask", "can only be given together with --kd")
    if ("lpips" in terms) != (opts.kd_lpips is not None):
        raise OptionError("--kd-lpips", "must be given together with --kd=lpips: a TorchScript file such as vgg16.pt")


def _check_elastic(opts: EasyDict, terms: dict[str, float]) -> None:
    """Checks that every width can be trained and cut out."""
    if not BASES[opts.cfg].elastic:
        raise OptionError("--elastic", f"cannot be given together with --cfg={opts.cfg}")
    if opts.game_kimg:
        raise OptionError("--elastic", "cannot be given together with --game-kimg: adversarial training updates the "
                                       "whole network only, so the narrower ones would lose what they learned; "
                                       "extract a width with prune_init.py, and train it with --init=PKL")
    if (opts.init or "slice") != "slice":
        raise OptionError("--elastic", "needs channels in the order of their score, so the student must start as a "
                                       "slice; leave --init out")
    for name in terms:
        if kd.TERMS[name].draws_images:
            raise OptionError("--elastic", f"cannot be given together with --kd={name}, which draws images by the "
                                           "whole network")


def _refuse(given: set[str], names: Collection[str], reason: str) -> None:
    for name in names:
        if name in given:
            raise OptionError("--" + name.replace("_", "-"), reason)


def generated_data(opts: EasyDict) -> DataInfo:
    """The teacher's own images as the data set of a run.

    Raises:
        UserError: the teacher cannot be read; OptionError: its generator and discriminator do not fit together.
    """
    from . import teacher as teachers

    teacher = teachers.load(os.path.expanduser(opts.teacher[0]), opts.trust_pickle, opts.get("teacher_sha256"),
                            needs_discriminator=False)
    opts.teacher_sha256 = teacher.sha256
    G, D = teacher.G_ema, teacher.D
    for attribute in ("img_resolution", "img_channels", "c_dim") if D is not None else ():
        if getattr(G, attribute) != getattr(D, attribute):
            raise OptionError("--teacher", f"{attribute} of the generator in {teacher.url} is {getattr(G, attribute)}, "
                                           f"of its discriminator {getattr(D, attribute)}, so its images cannot be "
                                           "shown to it; pass another teacher")
    use_labels = G.c_dim > 0 and opts.cond is not False
    if use_labels and teacher.label_kind == VECTORS:
        raise OptionError("--teacher", f"{teacher.url} was trained on labels that are vectors, which only a data set "
                                       "has; pass --data")
    arguments: dict[str, Any] = {"teacher": teachers.spec(teacher, opts.trust_pickle), "seed": opts.seed}
    arguments["use_labels"] = use_labels
    name = os.path.splitext(os.path.basename(os.path.normpath(opts.teacher[0])))[0]
    return DataInfo(Component(TEACHER_IMAGES, arguments), name, G.img_resolution, G.img_channels,
                    G.c_dim if use_labels else 0)


def check_discriminator(opts: EasyDict, family: str, url: str) -> None:
    """Checks that a run can do with a teacher without discriminator.

    Raises:
        OptionError: adversarial training, or distillation terms that compare in its features; names what else there is.
    """
    others = [f"--kd={name}" for name in kd.names(family) if not kd.TERMS[name].needs_discriminator]
    way_out = f"pass {', '.join(others[:-1])} or {others[-1]} (with --kd-lpips=FILE)"
    if not is_distilled(opts) or opts.game_kimg:
        need = "which adversarial training needs" if not is_distilled(opts) else "which --game-kimg needs"
        raise OptionError("--teacher", f"{url} holds no discriminator, {need}; pass another teacher, or distil alone: "
                                       f"leave out options of adversarial training, and {way_out}")
    needing = [name for name in dict(opts.kd or ()) if kd.TERMS[name].needs_discriminator]
    if needing:
        raise OptionError("--teacher", f"{url} holds no discriminator, in whose features --kd={needing[0]} compares; "
                                       f"{way_out}, or another teacher")
    for name in ("d_init", "d_width"):
        if opts[name] is not None and opts[name] != "scratch":
            raise OptionError("--" + name.replace("_", "-"), f"{url} holds no discriminator; leave it out")


def _distil_kimg(opts: EasyDict) -> int:
    return KIMG if opts.kimg is None else opts.kimg


def base_options(opts: EasyDict, resolution: int) -> EasyDict:
    """The options from which the base's configuration of a run is made: with the lengths and sizes of this recipe."""
    if not is_distilled(opts):
        return opts
    batch = BATCH if opts.batch is None else opts.batch
    batch_gpu = opts.batch_gpu
    if batch_gpu is None and batch % opts.gpus == 0:
        share, most = batch // opts.gpus, max(4096 // resolution, 1)  # images that one pass takes
        batch_gpu = max(size for size in range(1, share + 1) if share % size == 0 and size <= most)
    kimg = _distil_kimg(opts) + (opts.game_kimg or 0)
    return EasyDict({**opts, "batch": batch, "batch_gpu": batch_gpu, "kimg": kimg})


def configured(config: RunConfig, opts: EasyDict, D: "Discriminator", size: tuple[int, int]) -> RunConfig:
    """The configuration of a run with the terms of distillation, and its schedule if the recipe has one.

    Args:
        config: of the run with the loss of a teacher.
        opts: options of the command line.
        D: the teacher's discriminator; None if it has none, which no term then needs.
        size: height and width of the images.

    Raises:
        UserError: the mask cannot be used; OptionError: the blocks' weights do not fit the discriminator.
    """
    from metrics.perceptual import num_blocks

    from .comparison import read_mask

    is_distillation = is_distilled(opts)
    terms = dict(opts.kd or ())
    details: dict[str, Any] = {}
    if terms:
        details["kd"] = terms
    if "feature" in terms and (opts.kd_blocks is not None or is_distillation):
        blocks = opts.kd_blocks or [1.0] * num_blocks(D)
        if len(blocks) != num_blocks(D):
            raise OptionError("--kd-blocks", f"expected one weight for each of the {num_blocks(D)} blocks of the "
                                             f"teacher's discriminator, found {len(blocks)}")
        details["kd_blocks"] = blocks
    if opts.kd_mask is not None:
        read_mask(opts.kd_mask, size, "kd_mask", "the teacher's")
        details["kd_mask"] = opts.kd_mask
    if opts.kd_lpips is not None:
        details["kd_lpips"] = opts.kd_lpips
    if not is_distillation:
        return config.changed(loss=config.loss.with_arguments(**details))
    batch, distil_kimg = config.schedule.batch_size, _distil_kimg(opts)
    D_steps = config.optimizers.D_steps if opts.d_steps is not None else 1  # one batch of latents is one of real images
    warmup_kimg = WARMUP_STEPS * batch / 1000
    details.update(
        distil_kimg=distil_kimg,
        distil_lr=BASES[opts.cfg].distil_lr if opts.distil_lr is None else opts.distil_lr,
        distil_warmup_kimg=warmup_kimg,
        distil_seed=opts.seed,
    )
    if opts.elastic:
        details["elastic"] = list(map(str, opts.elastic))
    if D_steps > 1:
        details["distil_steps"] = D_steps
    if opts.game_warmup:
        details["game_warmup_kimg"] = opts.game_warmup
    if opts.game_kd is not None:
        details["game_kd"] = opts.game_kd
    init = config.networks.init
    assert init is not None
    game_ema = {"later_start_kimg": distil_kimg, "later_kimg": config.ema.kimg} if opts.game_kimg else {}
    return config.changed(
        loss=config.loss.with_arguments(**details),
        networks={"init": init.with_arguments(from_average=True, **({"nested": True} if opts.elastic else {}))},
        optimizers={"D_steps": D_steps},
        ema={"kimg": math.log(2) * EMA_STEPS * batch / 1000, "rampup": None, "start_kimg": warmup_kimg, **game_ema},
    )


def check_resumed(config: RunConfig, opts: EasyDict, given: set[str]) -> None:
    """Checks the changes to a run that is resumed.

    Raises:
        OptionError: a length that its schedule does not allow.
    """
    distil_kimg = config.loss.arguments.get("distil_kimg", 0)
    if "kimg" in given and distil_kimg and (distil_kimg >= config.schedule.total_kimg or opts.kimg <= distil_kimg):
        raise OptionError("--kimg", f"cannot change the {distil_kimg:g} kimg of distillation when resuming: its "
                                    "learning rate falls to 0 at their end; start a new run with --init=PKL")
    warmup_kimg, stage1_kimg = (config.loss.arguments.get(name, 0) for name in ("game_warmup_kimg", "stage1_kimg"))
    if "kimg" in given and warmup_kimg and opts.kimg <= distil_kimg + warmup_kimg:
        raise OptionError("--kimg", f"expected more than the {distil_kimg:g} kimg of distillation and {warmup_kimg:g} "
                                    f"of --game-warmup, found {opts.kimg}: the generator would never be trained")
    if "kimg" in given and 0 < stage1_kimg < config.schedule.total_kimg and opts.kimg <= stage1_kimg:
        raise OptionError("--kimg", f"expected more than {stage1_kimg:g}, after which the teacher joins "
                                    f"(--stage1-kimg), found {opts.kimg}")

