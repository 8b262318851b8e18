"""The command-line options of presets with a teacher, and the run configuration that they make. No torch until then."""
import dataclasses
import os
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from dnnlib import EasyDict
from dnnlib.cli import FiniteFloatRange, Fraction01
from dnnlib.errors import UserError
from training import architectures
from training.options import DataInfo, OptionError
from training.run_config import Component, NetworksConfig, RunConfig

from . import kd, recipe_options, scores
from .bases import BASES, TEACHER_IMAGES
from .recipes import STYLE_BASED

if TYPE_CHECKING:
    from torch_utils.network_types import Network

    from .teacher import Teacher

CFGS = tuple(BASES)


class TeacherWeights(click.ParamType):
    """Option type: 'dynamic', or numbers with commas between them."""

    name = "list"

    def convert(
        self, value: str | list[float], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | list[float]:
        """The weights as numbers, or 'dynamic'."""
        if isinstance(value, list) or value == "dynamic":
            return value
        try:
            weights = [float(item) for item in value.split(",")]
        except ValueError:
            self.fail(f"expected 'dynamic' or numbers such as 2,1, found {value!r}", param, ctx)
        if not (all(0 <= w < float("inf") for w in weights) and sum(weights) > 0):
            self.fail(f"expected numbers of at least 0, not all 0, found {value!r}", param, ctx)
        return weights


class WeightedTerm(click.ParamType):
    """Option type: a term of `dgl.kd.TERMS`, optionally with =WEIGHT (1 if not), as a pair."""

    name = "term"

    def convert(
        self, value: str | tuple[str, float], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """The term's name and its weight."""
        if isinstance(value, tuple):
            return value
        name, equals, weight = value.partition("=")
        if name not in kd.TERMS:
            self.fail(f"expected one of {', '.join(kd.TERMS)}, found {name!r}", param, ctx)
        try:
            number = float(weight) if equals else 1.0
        except ValueError:
            number = -1
        if not 0 <= number < float("inf"):
            self.fail(f"expected a weight of at least 0, found {weight!r}", param, ctx)
        return name, number


DGL_WEIGHT = 0.1  # λ of the authors' run lines

STARTS = ("slice", "mapping", "scratch")  # values of --init that are no files
GUIDANCE = ("verdict", "relative", "ratio", "heads")

_OPTIONS: list[Callable[[Any], Any]] = [
    click.option("--teacher", help="Network pickle of the teacher, path or URL. Repeatable: the student is made from "
                 "the first, and the terms of all are averaged.  [required with --cfg=dgl and dgl-biggan]",
                 multiple=True, metavar="[PATH|URL]"),
    click.option("--width", help="Fraction of the teacher's generator channels that the student has, e.g. 0.5 or 2/3; "
                 "1 trains the uncompressed network further.  [required likewise unless --init is a pickle]",
                 type=Fraction01(), metavar="FRACTION"),
    click.option("--guidance", help="How the teacher's D guides adversarial training: verdict (by its logits, as "
                 "published), relative (by the difference of its logits from those of the teacher's images of the "
                 "same latents), ratio (its logits are added to those of the student's D, which learns to tell the "
                 "teacher's images from the student's) or heads (new heads on its features, trained as a second D).",
                 show_default="verdict", type=click.Choice(GUIDANCE)),
    click.option("--dgl-weight", help="Weight (lambda) of the teacher's term.", show_default="0.1",
                 type=FiniteFloatRange(min=0), metavar="FLOAT"),
    click.option("--dgl-ramp", help="Let lambda grow from 0 over this many thousands of images.", show_default="0",
                 type=click.IntRange(min=0), metavar="INT"),
    click.option("--teacher-weights", help="Weights of several teachers, e.g. 2,1, or 'dynamic', which favours the "
                 "teacher that the student convinces least.", show_default="all alike", type=TeacherWeights(),
                 metavar="[LIST|dynamic]"),
    click.option("--kd", help=f"Add a distillation term: {kd.help_text()}, each optionally =WEIGHT; repeatable.",
                 show_default="the recipe's: rgb and feature; none with --recipe=paper", multiple=True,
                 type=WeightedTerm(), metavar="TERM[=WEIGHT]"),
    click.option("--init", help="Where the student starts: slice (of the teacher), mapping (random weights except for "
                 "the teacher's mapping network and constant noise), scratch, or the pickle of a student.",
                 show_default="slice", metavar="[slice|mapping|scratch|PKL]"),
    click.option("--score", help="Which channels a slice keeps.",
                 show_default="reconstruct where it is refitted and the score applies, else l1",
                 type=click.Choice(scores.NAMES)),
    click.option("--refine", help="Refinement of a slice.", show_default="none", type=click.Choice(scores.REFINEMENTS)),
    click.option("--refit/--no-refit", help="Fit the weights of a slice to the teacher's features, in closed form and "
                 "without data.", default=None, show_default="yes with --init=slice and --recipe=distil"),
    click.option("--d-init", help="Where the student's discriminator starts.",
                 show_default="teacher; scratch with --init=scratch; the pickle's with --init=PKL and no --d-width",
                 type=click.Choice(["teacher", "scratch"])),
    click.option("--d-width", help="Fraction of the teacher's discriminator channels that the student's has.",
                 show_default="1", type=Fraction01(), metavar="FRACTION"),
    click.option("--stage1-kimg", help="Length of a first stage without the teacher, in thousands of images.",
                 show_default="0, with --init=scratch half of the run", type=click.IntRange(min=0), metavar="INT"),
    click.option("--teacher-update/--no-teacher-update", help="Train the teacher's discriminator further, on real "
                 "images and the student's.", default=None, show_default="no"),
    click.option("--keep-mapping/--no-keep-mapping", help="In adversarial training, train the student's synthesis "
                 "network alone, so that a latent keeps its w.", default=None, show_default="no"),
    click.option("--teacher-aug", help="Show the augmented images to the teacher's discriminator.", is_flag=True),
    click.option("--report", help="At the end of the run, write a page about the student, report.html in the run "
                 "directory.", is_flag=True),
    *recipe_options.OPTIONS,
]
_NAMES = ("teacher", "width", "guidance", "dgl_weight", "init", "score", "d_init", "d_width", "stage1_kimg",
          "teacher_update", "keep_mapping", "teacher_aug", "refine", "refit", "dgl_ramp", "teacher_weights", "kd",
          "report",
          *recipe_options.OPTION_NAMES)


def add(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds the options of this plugin to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


FREE_WHEN_RESUMING = {"report"}
START_FLAG = "--init"  # how a run with a teacher starts from another run's pickle


def guides(config: RunConfig) -> bool:
    """Whether a run of this configuration has a teacher."""
    return "teachers" in config.loss.arguments


def complete(opts: EasyDict, given: set[str]) -> None:
    """Fills in what this plugin's presets default to, before anything is required.

    `dgl` stands for the preset of the teacher's family.

    Raises:
        OptionError: options of --cfg=dgl without it; options that need data, without data.
    """
    if opts.cfg not in BASES:
        for name in _NAMES:
            if name in given:
                raise OptionError(_flag(name), f"can only be given together with --cfg={' or --cfg='.join(CFGS)}")
        return
    if opts.cfg == "dgl" and opts.teacher:
        opts.cfg = _preset_of_teacher(opts)
    recipe_options.complete(opts, given)


def _preset_of_teacher(opts: EasyDict) -> str:
    """The preset that trains networks like the first teacher's; the given one for a teacher that cannot be read, which
    is reported where it is needed. Notes the teacher's hash, so that it is opened once.
    """
    from . import teacher as teachers

    try:
        teacher = teachers.load(os.path.expanduser(opts.teacher[0]), opts.trust_pickle, needs_discriminator=False)
    except UserError:
        return opts.cfg
    opts.teacher_sha256 = teacher.sha256
    return (_presets_for(teacher.G_ema) or [opts.cfg])[0]


def _presets_for(G: object) -> list[str]:
    """The presets that train generators of this family."""
    family = architectures.find(G)
    return [name for name, base in BASES.items() if family is not None and base.family == family.name]


def generated_data(opts: EasyDict) -> DataInfo | None:
    """The data set of a run on a teacher's own images; None for every other run.

    Raises:
        UserError: the teacher cannot be read; OptionError: its networks do not fit together.
    """
    return recipe_options.generated_data(opts) if opts.cfg in BASES and opts.data == recipe_options.DATA else None


def check_resumed(config: RunConfig, opts: EasyDict, given: set[str]) -> None:
    """Checks the changes to a run that is resumed.

    Raises:
        OptionError: a change that the run's schedule does not allow.
    """
    if opts.report and not guides(config):
        raise OptionError("--report", "compares a student with its teacher, but this run has none")
    recipe_options.check_resumed(config, opts, given)


def at_end(opts: EasyDict) -> Callable[[RunConfig, str], str] | None:
    """What to do with the configuration and the folder of a run that is complete; returns the path of what it wrote."""
    if not opts.report:
        return None
    from .report import of_run

    return of_run.write


def check_shared_out(config: RunConfig) -> None:
    """Checks the sizes of batch and passes that a run is resumed with.

    Raises:
        OptionError: a distillation term needs larger passes.
    """
    _check_passes(config.loss.arguments.get("kd") or {}, config.schedule.batch_gpu)


def _check_passes(terms: Iterable[str], batch_gpu: int) -> None:
    """Some terms of distillation need passes of more than one image."""
    compared = [name for name in terms if kd.TERMS[name].compares_images]
    if compared and batch_gpu == 1:
        raise OptionError("--kd", f"{compared[0]} compares the images of one pass with each other, but a pass has only "
                                  "one (--batch divided by --gpus, or --batch-gpu)")


def is_same_for_any_processes(config: RunConfig) -> bool:
    """Whether a run computes the same, but for rounding, with any number of processes.

    Distillation does, except for terms that compare the images of one pass with each other.
    """
    arguments = config.loss.arguments
    return arguments.get("distil_kimg", 0) >= config.schedule.total_kimg and not any(
        kd.TERMS[name].compares_images for name in arguments["kd"])


def check(opts: EasyDict, given: set[str]) -> None:
    """Checks which options were given, before any file is opened.

    Raises:
        OptionError: one that --cfg=dgl does not allow or lacks.
    """
    base = BASES.get(opts.cfg)
    if base is None:
        return
    for name in base.from_teacher:
        if name in given and opts[name] != "noresume":
            hint = "; to start from a student's pickle pass --init=PKL" if name == "resume" else ""
            raise OptionError(_flag(name), f"cannot be given together with --cfg={opts.cfg}, which takes its networks "
                                           f"from --teacher{hint}")
    for name in base.meaningless:
        if opts[name] and opts[name] != "none":
            raise OptionError(_flag(name), f"cannot be given together with --cfg={opts.cfg}")
    terms = [name for name, _ in opts.kd or ()]
    for name in terms:
        if name not in kd.names(base.family):
            raise OptionError("--kd", f"cannot be given together with --cfg={opts.cfg}")
    if len(set(terms)) < len(terms):
        raise OptionError("--kd", f"every term can be given once, found {', '.join(terms)}")
    if "kd" in given and opts.init == "scratch":
        raise OptionError("--kd", "compares images of the same w, but --init=scratch gives the student a w of its own; "
                                  "start from a slice, or from the pickle of a student that began as one"
                                  + (", or pass --init=mapping" if base.family in STYLE_BASED else ""))
    _check_guidance(opts, given)
    if opts.score in base.no_scores:
        raise OptionError("--score", f"{opts.score} cannot be given together with --cfg={opts.cfg}")
    if base.loss_is_signed and opts.teacher_weights == "dynamic":
        raise OptionError("--teacher-weights", f"'dynamic' cannot be given together with --cfg={opts.cfg}, whose "
                                               "losses can be negative and give no shares; pass numbers")
    if opts.teacher_weights == "dynamic" and len(opts.teacher) == 1:
        raise OptionError("--teacher-weights", "'dynamic' chooses between teachers, but --teacher was given once")
    if not opts.teacher:
        raise OptionError("--teacher", f"--cfg={opts.cfg} needs the network pickle of a teacher")
    if opts.width is None and (opts.init or "slice") in STARTS:
        raise OptionError("--width", f"--cfg={opts.cfg} needs the width of the student, e.g. --width=0.5")
    recipe_options.check(opts, given)


def _check_guidance(opts: EasyDict, given: set[str]) -> None:
    """Checks options that do not apply to a form of guidance, or to a teacher's term without weight."""
    if opts.dgl_weight == 0 and not (recipe_options.is_distilled(opts) and not opts.game_kimg):
        source = "" if "dgl_weight" in given else f" of --recipe={opts.recipe}"
        for name in ("guidance", "dgl_ramp", "teacher_weights", "teacher_update", "teacher_aug"):
            if opts[name] and opts[name] != "verdict":
                raise OptionError(_flag(name), f"has no effect with the --dgl-weight=0{source}; pass another "
                                               f"--dgl-weight, such as {DGL_WEIGHT}")
    if opts.guidance == "relative" and opts.init == "scratch":
        raise OptionError("--guidance", "relative compares images of the same w, but --init=scratch gives the student "
                                        "a w of its own; start from a slice or a student's pickle")
    for form, names in {"relative": ("teacher_aug",), "ratio": ("teacher_aug", "teacher_weights", "teacher_update"),
                        "heads": ("teacher_update",)}.items():
        for name in names:
            if opts.guidance == form and opts[name]:
                raise OptionError(_flag(name), f"cannot be given together with --guidance={form}")


@dataclasses.dataclass(frozen=True)
class _Start:
    """How the student starts, with every default filled in."""

    init: str
    score: str | None  # None is that which fits the refit
    refine: str
    refit: bool | None  # None is wherever it applies
    d_init: str
    width: Fraction
    d_width: Fraction


def _start(opts: EasyDict) -> _Start:
    init = opts.init or "slice"
    if init not in STARTS:
        init = os.path.expanduser(init)
    for name in ("score", "refine", "refit"):
        if opts[name] is not None and init != "slice":
            raise OptionError(_flag(name), "can only be given together with --init=slice")
    d_init = opts.d_init or {"slice": "teacher", "mapping": "teacher", "scratch": "scratch"}.get(
        init, "init" if opts.d_width is None else "teacher")
    return _Start(
        init=init,
        score=opts.score,
        refine=opts.refine or "none",
        refit=opts.refit if init == "slice" else False,
        d_init=d_init,
        width=Fraction(1) if opts.width is None else opts.width,
        d_width=Fraction(1) if opts.d_width is None else opts.d_width,
    )


def training_config(opts: EasyDict, given: set[str], data: DataInfo) -> RunConfig:
    """The configuration of a run that trains a student of a teacher.

    Raises:
        UserError: a teacher cannot be read or does not fit the data; OptionError: options that do not fit together.
    """
    from torch_utils.network_types import check_square, image_size

    from . import refit
    from . import teacher as teachers
    from .scores.registry import default_for
    from .student import resized

    start, base = _start(opts), BASES[opts.cfg]
    urls = [os.path.expanduser(url) for url in opts.teacher]
    hashes = {urls[0]: opts.get("teacher_sha256")}  # of one that has been opened already
    loaded = [teachers.load(url, opts.trust_pickle, hashes.get(url), needs_discriminator=False) for url in urls]
    for teacher in loaded:
        if teacher.D is None:
            recipe_options.check_discriminator(opts, base.family, teacher.url)
        _check_kind(teacher, opts.cfg)
        teachers.check_alike(loaded[0], teacher)
        teachers.check_fits(teacher, data.resolution, data.num_channels, data.label_dim)
        if data.training_set.name != TEACHER_IMAGES:
            check_square(teacher.G_ema, "training on a data set", "teacher")
    config = base.config(recipe_options.base_options(opts, data.resolution), data)
    first = loaded[0]
    D = None if first.D is None else resized(first.D, start.d_width)
    if start.refit and not refit.applies(first.G_ema):
        raise OptionError("--refit", f"cannot be given together with --cfg={opts.cfg}")
    is_refitted = start.refit
    if is_refitted is None:
        is_refitted = recipe_options.is_distilled(opts) and refit.applies(first.G_ema)
    if start.init == "mapping" and not hasattr(first.G_ema, "mapping"):
        raise OptionError("--init", f"mapping cannot be given together with --cfg={opts.cfg}, whose generators have no "
                                    "mapping network")
    if start.init in STARTS:
        G = resized(first.G_ema, start.width, is_refitted)
    else:
        G, own_D = _student_of(start, opts, first)
        if start.d_init == "init" and own_D is None:
            start = dataclasses.replace(start, d_init="teacher")
        D = own_D if start.d_init == "init" else D
    specs = [teachers.spec(teacher, opts.trust_pickle) for teacher in loaded]
    init = Component("dgl.student.initialise", {
        "teacher": specs[0],
        "init": start.init,
        "width": str(start.width),
        "score": start.score or default_for(first.G_ema, is_refitted),
        "refine": start.refine,
        "d_init": "scratch" if D is None else start.d_init,
        "d_width": str(start.d_width),
        "seed": opts.seed,
        **({"refit": True} if is_refitted else {}),
    })
    config = config.changed(
        networks=NetworksConfig(G=_component(G), D=config.networks.D if D is None else _component(D), init=init),
        loss=_loss_config(opts, config, start, specs, base.loss),
    )
    if not recipe_options.is_distilled(opts) or opts.game_kimg:
        base.check(config, [D, *(teacher.D for teacher in loaded)])
    return recipe_options.configured(config, opts, first.D, image_size(first.G_ema))


def _component(network: "Network") -> Component:
    """What builds a network of the same shape; the training loop adds the sizes of the data set."""
    sizes = ("c_dim", "img_resolution", "img_channels")
    arguments = {key: value for key, value in network.init_kwargs.items() if key not in sizes}
    return Component(architectures.class_path(network), arguments)


def _check_kind(teacher: "Teacher", cfg: str) -> None:
    """The teacher must be of the kind that the preset trains."""
    family = architectures.find(teacher.G_ema)
    expected = architectures.of_preset(cfg)
    if family is not expected:
        fitting = [f"--cfg={name}" for name in _presets_for(teacher.G_ema)]
        raise OptionError("--teacher", f"--cfg={cfg} expects a {expected.generator.rpartition('.')[2]}, {teacher.url} "
                                       f"holds a {type(teacher.G_ema).__name__}; "
                                       f"{'use ' + fitting[0] if fitting else 'it cannot be compressed'}")


def _student_of(start: _Start, opts: EasyDict, teacher: "Teacher") -> tuple[Any, Any]:
    """Generator and discriminator (None if there is none) of --init=PKL, checked against the teacher and --width."""
    from torch_utils.network_types import image_size
    from training.checkpoints.pickles import open_networks

    from .student import resized

    try:
        nets = open_networks(start.init, trust_pickle=opts.trust_pickle)
    except UserError as error:
        raise OptionError("--init", f"expected slice, mapping, scratch or the pickle of a student; {error}") from None
    G = nets["G_ema"]
    if architectures.find(G) is not architectures.find(teacher.G_ema):
        raise OptionError("--init", f"{start.init} holds a {type(G).__name__}, the teacher is a "
                                    f"{type(teacher.G_ema).__name__}; pass a student of this teacher")
    compares = any(weight for _, weight in opts.kd or ()) or opts.guidance in ("relative", "ratio")
    shared = ("z_dim", "w_dim", "num_ws") if compares else ()  # of networks that are given the same latents
    for attribute in ("img_resolution", "img_channels", "c_dim", *shared):
        own, expected = (getattr(network, attribute, None) for network in (G, teacher.G_ema))
        if own != expected:
            raise OptionError("--init", f"{attribute} of {start.init} is {own}, the teacher's is {expected}")
    sizes = ["x".join(map(str, image_size(network)[::-1])) for network in (G, teacher.G_ema)]
    if sizes[0] != sizes[1]:
        raise OptionError("--init", f"{start.init} makes images of {sizes[0]}, the teacher of {sizes[1]}")
    if opts.width is not None:
        expected = resized(teacher.G_ema, start.width)
        shapes = [{name: tuple(p.shape) for name, p in network.named_parameters()} for network in (G, expected)]
        if shapes[0] != shapes[1]:
            raise OptionError("--width", f"{start.init} is not {start.width} of the teacher's width; leave --width out "
                                         "to take the student as it is")
    return G, nets["D"] if start.d_init == "init" and "D" in nets else None


def _loss_config(
    opts: EasyDict, config: RunConfig, start: _Start, specs: list[dict[str, Any]], loss_name: str
) -> Component:
    stage1, total_kimg = opts.stage1_kimg, config.schedule.total_kimg
    if stage1 is None:
        stage1 = int(total_kimg) // 2 if start.init == "scratch" else 0
    elif stage1 >= total_kimg:
        raise OptionError("--stage1-kimg", f"the run ends at {total_kimg:g} kimg, before the teacher joins at {stage1}")
    loss = EasyDict(config.loss.arguments)
    loss.update(
        teachers=specs,
        dgl_weight=DGL_WEIGHT if opts.dgl_weight is None else opts.dgl_weight,
        stage1_kimg=stage1,
        teacher_aug=opts.teacher_aug,
        teacher_update=bool(opts.teacher_update),
    )
    if opts.keep_mapping:
        loss.keep_mapping = True
    if opts.guidance not in (None, "verdict"):
        loss.guidance = opts.guidance
    if opts.guidance == "ratio" and opts.data == recipe_options.DATA:
        loss.ratio_calibrate = False
    if opts.dgl_ramp:
        loss.dgl_ramp_kimg = opts.dgl_ramp
    if opts.teacher_weights is not None:
        if opts.teacher_weights != "dynamic" and len(opts.teacher_weights) != len(specs):
            raise OptionError("--teacher-weights", f"expected one weight for each of the {len(specs)} teacher(s), "
                                                   f"found {len(opts.teacher_weights)}")
        loss.teacher_weights = opts.teacher_weights
    if opts.teacher_aug and config.augmentation.pipe is None:
        raise OptionError("--teacher-aug", "nothing is augmented in this run; pass --aug=ada or --aug=fixed --p=P too")
    _check_passes(dict(opts.kd or ()), config.schedule.batch_gpu)
    if opts.teacher_update or opts.guidance == "heads":
        loss.teacher_opt_kwargs = EasyDict(config.optimizers.D.to_dict())
    return Component(loss_name, loss)
