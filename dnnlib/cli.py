"""What the command lines share: one-line errors, and the options that several of them use, with their meaning."""
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, TypeVar, cast

import click
import numpy as np

from dnnlib.errors import UserError, printable

_AnyCallable = TypeVar("_AnyCallable", bound=Callable[..., Any])

_MAX_SEED = 2**32 - 1  # what numpy.random.RandomState takes


_SHOWS_HELP: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())  # an "error" of newer versions of click


def in_flags(error: UserError, command: click.Command, fields: Mapping[str, str] | None = None) -> str:
    """The text of an error with the arguments that it names shown as the flags of a command.

    Args:
        error: whose field, and whose `name` and `name=value` in backquotes, are looked up.
        command: whose options they may be; other names stay as they are.
        fields: field of a library call → the command's option for it, where the names differ.
    """
    options = {param.name: param for param in command.params if isinstance(param, click.Option)}

    def flag(name: str, value: str | None = None) -> str | None:
        option = options.get((fields or {}).get(name, name))
        if option is None:
            return None
        if option.is_flag:
            is_off = str(value).lower() == "false" and bool(option.secondary_opts)
            return max(option.secondary_opts if is_off else option.opts, key=len)
        text = max(option.opts, key=len)
        return text if value is None else f"{text}={value}"

    argument = re.compile(r"`([A-Za-z_]\w*)(?:=([^`]*))?`")
    message = argument.sub(lambda match: flag(match[1], match[2]) or match[0], error.message)
    shown = printable(message if error.field is None else f"{flag(error.field) or error.field}: {message}")
    is_list = "\n  " in shown  # in other messages, a line break is part of a name
    return shown if is_list else shown.replace("\n", "\\n")


@contextmanager
def _one_line_errors(command: click.Command, fields: Mapping[str, str]) -> Iterator[None]:
    """Turns mistakes of users into "Error: message" on stderr, without click's lines of usage above it.

    The exit status is 1, or 2 for the use of the command line.
    """
    try:
        yield
    except _SHOWS_HELP:
        raise
    except click.UsageError as error:
        raise click.UsageError(printable(" ".join(error.format_message().split()))) from error
    except UserError as error:
        raise click.ClickException(in_flags(error, command, fields)) from error


_PATH_KINDS = re.compile(r"PATH|DIR|FILE|PKL|PNG|png")  # in the metavar of an option


def _with_home(command: click.Command, args: list[str]) -> list[str]:
    """The arguments with `~` expanded in values of path options; shells leave it as it is after `--name=`."""
    options = [param for param in command.params if isinstance(param, click.Option)]
    flags = {flag for option in options if _PATH_KINDS.search(str(option.metavar)) for flag in option.opts}
    flags |= {flag[:2] + flag[2:].replace("-", "_") for flag in flags}
    expanded = []
    for before, arg in zip(["", *args], args):
        flag, equals, value = arg.partition("=")
        if flag in flags and value.startswith("~"):
            arg = flag + equals + os.path.expanduser(value)
        elif before in flags and arg.startswith("~"):
            arg = os.path.expanduser(arg)
        expanded.append(arg)
    return expanded


def _option_of(message: str, ctx: click.Context) -> str | None:
    """The option whose value a message begins with, "FILE: ..."; None if there is none, or more than one."""
    names = [param.name for param in ctx.command.params if isinstance(param, click.Option)
             for value in _texts(ctx.params.get(str(param.name))) if message.startswith(f"{value}: ")]
    return names[0] if len(names) == 1 else None


def _texts(value: object) -> list[str]:
    """The texts that an option was given."""
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) and value else []


def _with_dashes(name: str) -> str:
    """The name of an option; NVIDIA's commands spell some with underscores."""
    return name.replace("_", "-")


class _OneLineErrors:
    """What a command needs for that.

    Args:
        fields: field of a library call → the command's option for it, where the names differ.
    """

    def __init__(self, *args: Any, fields: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        settings = kwargs.get("context_settings") or {}
        kwargs["context_settings"] = {"token_normalize_func": _with_dashes, **settings}
        super().__init__(*args, **kwargs)
        self.fields = dict(fields or {})

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **kwargs: Any) -> click.Context:
        """Parses the arguments; `~` at the start of a path stands for the home folder, as in a shell."""
        command = cast(click.Command, self)
        with _one_line_errors(command, self.fields):
            expanded = _with_home(command, args)
            return super().make_context(info_name, expanded, *rest, **kwargs)  # type: ignore[misc]

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line_errors(cast(click.Command, self), self.fields):
            try:
                return super().invoke(ctx)  # type: ignore[misc]
            except UserError as error:
                if error.field is None:
                    error.field = _option_of(error.message, ctx)
                raise


class Command(_OneLineErrors, click.Command):
    """A command for which a user's mistake is one line, not a traceback: `@click.command(cls=Command)`."""


class Group(_OneLineErrors, click.Group):
    """A group of such commands."""

    command_class = Command


def parse_seeds(text: str) -> list[int]:
    """Reads a list of seeds such as "1,3,5-8" (gives 1, 3, 5, 6, 7, 8); the order and repetitions are kept.

    Raises:
        ValueError: an entry is neither a number from 0 to 2^32-1 nor a range a-b with a <= b.
    """
    seeds: list[int] = []
    for item in text.split(","):
        match = re.fullmatch(r"\s*([0-9]+)\s*(?:-\s*([0-9]+)\s*)?", item)
        if match is None:
            raise ValueError(f"expected numbers and ranges such as 1,3,5-8, found {item!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last > _MAX_SEED:
            raise ValueError(f"seeds go from 0 to {_MAX_SEED}, found {last}")
        if last < first:
            raise ValueError(f"a range goes upwards, found {item.strip()!r}")
        seeds.extend(range(first, last + 1))
    return seeds


class SeedList(click.ParamType):
    """Option type: "1,3,5-8" becomes a list of ints; see `parse_seeds`."""

    name = "list"

    def convert(self, value: str | list[int], param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Reads the option's text."""
        if isinstance(value, list):
            return value
        try:
            return parse_seeds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CommaList(click.ParamType):
    """Option type: "a,b" becomes ["a", "b"]; "none" in any case, or nothing, becomes an empty list."""

    name = "list"

    def convert(self, value: str | list[str], param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Reads the option's text."""
        if isinstance(value, list):
            return value
        items = [item.strip() for item in value.split(",")]
        if len(items) == 1 and items[0].lower() in ("", "none"):
            return []
        if "" in items:
            self.fail(f"expected names with commas between them, found an empty one in {value!r}", param, ctx)
        return items


class Fraction01(click.ParamType):
    """Option type: an exact `fractions.Fraction` above 0 and up to 1, written as 0.57 or 2/3."""

    name = "fraction"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Reads the option's text."""
        try:
            text = re.fullmatch(r"[0-9]*\.?[0-9]*|[0-9]+/[0-9]+", str(value).strip())
            fraction = Fraction(text.group() if text else "")
        except (ValueError, ZeroDivisionError):
            self.fail(f"expected a fraction such as 0.5 or 2/3, found {value!r}", param, ctx)
        if not 0 < fraction <= 1:
            self.fail(f"expected a fraction above 0 and up to 1, found {value}", param, ctx)
        return fraction


def device_option(command: _AnyCallable) -> _AnyCallable:
    """Adds --device=auto|cpu|cuda|mps, which reaches the command as the string `device`."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute; auto takes a GPU if there is one.",
    )(command)


def trust_pickle_option(command: _AnyCallable) -> _AnyCallable:
    """Adds the flag --trust-pickle, which reaches the command as the bool `trust_pickle`."""
    return click.option(
        "--trust-pickle",
        is_flag=True,
        help="Run the code that a network file carries. Only for files whose origin you trust.",
    )(command)


def trust_detector_option(command: _AnyCallable) -> _AnyCallable:
    """Adds the flag --trust-detector, which reaches the command as the bool `trust_detector`."""
    return click.option(
        "--trust-detector",
        is_flag=True,
        help="Run detectors without looking through their code. Only for files whose origin you trust.",
    )(command)


def seed_latents(seeds: list[int], z_dim: int) -> np.ndarray:
    """The latents that --seeds stands for: float32 [number of seeds, z_dim].

    They are drawn in double precision by NumPy's legacy generator, as in NVIDIA's scripts, and then rounded.
    """
    latents = [np.random.RandomState(seed).randn(z_dim) for seed in seeds]
    return np.array(latents, dtype=np.float32).reshape(len(seeds), z_dim)


ClassChoice = int | range | tuple[float, ...]  # a class, several in turn, or the numbers of a label


class ClassOrLabel(click.ParamType):
    """Option type: 7 becomes an int, a class; 0-9 a `range` of them; 0.33,0.67 a tuple of floats, a label."""

    name = "label"

    def convert(
        self, value: str | ClassChoice, param: click.Parameter | None, ctx: click.Context | None
    ) -> ClassChoice:
        """Reads the option's text."""
        if isinstance(value, (int, range, tuple)):
            return value
        if re.fullmatch(r"-?[0-9]+", value):
            if int(value) < 0:
                self.fail(f"expected a class number from 0 up, found {value}", param, ctx)
            return int(value)
        between = re.fullmatch(r"([0-9]+)-([0-9]+)", value)
        if between is not None:
            if int(between[2]) < int(between[1]):
                self.fail(f"a range goes upwards, found {value!r}", param, ctx)
            return range(int(between[1]), int(between[2]) + 1)
        try:
            numbers = tuple(float(item) for item in value.split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(math.isfinite(number) for number in numbers):
            self.fail(f"expected a class number, a range of them, or numbers with commas between them, found {value!r}",
                      param, ctx)
        return numbers


class FiniteFloat(click.ParamType):
    """Option type: a number that is neither NaN nor infinite."""

    name = "float"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads the option's text."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            self.fail(f"expected a finite number, found {value!r}", param, ctx)
        return number


class FiniteFloatRange(click.FloatRange):
    """Option type: a number in a range, which NaN and infinity never are."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Reads the option's text."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"expected a finite number, found {value!r}", param, ctx)
        return number


CLASSES, VECTORS = LABEL_KINDS = ("classes", "vectors")  # what labels were in training: class numbers, or any numbers


def class_label(
    c_dim: int, class_idx: int | tuple[float, ...] | None, kind: str | None = None
) -> np.ndarray:
    """The label that `class_idx` stands for: float32 [1, c_dim]; warns if the network (c_dim 0) has no use for it.

    Args:
        c_dim: length of the network's labels.
        class_idx: class number, or the label itself, of c_dim numbers.
        kind: of the labels that the network was trained on (LABEL_KINDS); None if its file does not say.

    Raises:
        UserError: the network is conditional and there is no class, or none of that number, or a label of another
            size, or a class where labels are vectors.
    """
    if c_dim == 0:
        if class_idx is not None:
            click.echo("Warning: --class has no effect, this network knows no classes", err=True)
        return np.zeros([1, 0], dtype=np.float32)
    if class_idx is None:
        if kind == VECTORS:
            raise UserError(f"give the label of the images, {c_dim} number{'s' * (c_dim > 1)}: this network was "
                            "trained on labels that are vectors", "class_idx")
        raise UserError(f"give the class of the images, 0 to {c_dim - 1}, or a label of {c_dim} numbers", "class_idx")
    if kind == VECTORS and isinstance(class_idx, int):
        if c_dim > 1:
            raise UserError(f"this network was trained on labels that are vectors, not class numbers; give all {c_dim} "
                            f"numbers, found {class_idx}", "class_idx")
        class_idx = (float(class_idx),)
    if isinstance(class_idx, tuple):
        if len(class_idx) != c_dim:
            raise UserError(f"this network takes labels of {c_dim} numbers, found {len(class_idx)}", "class_idx")
        return np.array([class_idx], dtype=np.float32)
    if class_idx not in range(c_dim):
        raise UserError(f"this network has classes 0 to {c_dim - 1}, found {class_idx}", "class_idx")
    return (np.arange(c_dim) == class_idx).astype(np.float32)[np.newaxis]


def class_labels(c_dim: int, choice: ClassChoice | None, kind: str | None = None) -> dict[str, np.ndarray]:
    """The labels that --class stands for, by the beginning of names of files: "class3-" for each of a range, else "".

    Args:
        c_dim, kind: as for `class_label`.
        choice: class, range of classes, or label.

    Returns:
        float32 [1, c_dim] each.

    Raises:
        UserError: as `class_label`.
    """
    if not isinstance(choice, range):
        return {"": class_label(c_dim, choice, kind)}
    if c_dim == 0:
        return {"": class_label(c_dim, choice[0])}
    if kind == VECTORS:
        raise UserError(f"this network was trained on labels that are vectors, not class numbers; give all {c_dim} "
                        f"numbers of one, found the range {choice[0]}-{choice[-1]}", "class_idx")
    return {f"class{number}-": class_label(c_dim, number, kind) for number in choice}


class_option = click.option(
    "--class", "--label", "class_idx", type=ClassOrLabel(), metavar="INT|RANGE|LIST",
    help="Class number, a range of them (0-9), or the label itself as numbers with commas between them, e.g. 0.5,0.5 "
         "to mix two classes.",
)  # fmt: skip
