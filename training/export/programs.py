"""What an exported generator computes: modules whose inputs are all tensors, traced by every format.

Shapes: N batch, R image resolution, C image channels.
"""
import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.network_types import Generator
from training.data.images import GENERATED

INPUTS = ("z", "w")
NOISE_MODES = ("const", "none", "random")
PIXELS = ("float", "uint8")


@dataclasses.dataclass(frozen=True)
class ProgramInput:
    """One input of a program.

    Attributes:
        name: as callers of the file see it.
        shape: with the batch size 1 if it is batched.
        batched: whether the first axis is the batch.
    """

    name: str
    shape: tuple[int, ...]
    batched: bool

    def example(self, batch: int, rng: torch.Generator) -> torch.Tensor:
        """A random tensor [batch, ...] for this input: latents and noise normal, labels one-hot, the truncation 0.7."""
        if self.name == "truncation":
            return torch.tensor(0.7)
        if self.name == "label":
            classes = torch.randint(self.shape[1], [batch], generator=rng)
            return torch.nn.functional.one_hot(classes, self.shape[1]).float()
        return torch.randn([batch, *self.shape[1:]], generator=rng)


class Program(torch.nn.Module):
    """Base of all programs.

    Attributes:
        inputs: the tensors that `forward` takes, in order.
        output: name of its result.
        pixels: whether that is "float" or "uint8".
    """

    inputs: list[ProgramInput]
    output: str
    pixels = "float"

    def examples(self, batch: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Arguments for a call with a batch size, batched ones [batch, ...]."""
        rng = torch.Generator().manual_seed(seed)
        return tuple(item.example(batch, rng) for item in self.inputs)

    def dynamic_shapes(self) -> tuple[dict[int, Any], ...]:
        """Which axes of the inputs vary, for `torch.export.export`."""
        batch = torch.export.Dim("batch")
        return tuple({0: batch} if item.batched else {} for item in self.inputs)


class _Labels(torch.nn.Module):
    """The label of a network from what a program is given.

    Args:
        choices: labels [n, c_dim] that the program knows: one is always taken; of several, the program's own label
            [N, n] says which, or how they are mixed. None hands the label on as it is.
    """

    choices: torch.Tensor | None

    def __init__(self, choices: torch.Tensor | None) -> None:
        super().__init__()
        self.register_buffer("choices", choices)

    def forward(self, z: torch.Tensor, given: list[torch.Tensor]) -> torch.Tensor | None:
        """Labels [N, c_dim] for latents z [N, z_dim]; None for a network without."""
        if self.choices is None:
            return given[0] if given else None
        if not given:
            return self.choices.expand(z.shape[0], -1)
        return given[0].matmul(self.choices)


class MappingProgram(Program):
    """z [N, z_dim], (label [N, c_dim],) truncation [] → w [N, num_ws, w_dim].

    The truncation is the factor of the distance of w from its average (arXiv:1812.04948, section 2.2); 1 is none.
    `choices` are labels [n, c_dim] that the program is restricted to; see `latent_inputs`.
    """

    output = "w"

    def __init__(self, G: Generator, choices: torch.Tensor | None = None) -> None:
        super().__init__()
        self.mapping = G.mapping
        self.labels = _Labels(choices)
        self.inputs = latent_inputs(G, choices)

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        """w [N, num_ws, w_dim] of z [N, z_dim] (, label [N, c_dim]) and truncation []."""
        z, *label, truncation = args
        ws = self.mapping(z, self.labels(z, label))
        average = self.mapping.w_avg
        return average + (ws - average) * truncation


class SynthesisProgram(Program):
    """w [N, num_ws, w_dim] (and noise) → image.

    Args:
        G: a style-based generator.
        noise: "const" for the stored noise, "none", or "random": every layer's noise [N, 1, H, W] becomes an input.
        pixels: "float" for images [N, C, R, R] nominally in [-1, 1], "uint8" for [N, R, R, C] as image files hold them.
    """

    output = "image"

    def __init__(self, G: Generator, noise: str = "const", pixels: str = "float") -> None:
        super().__init__()
        self.synthesis = G.synthesis
        self.noise_mode = "none" if noise == "none" else "const"
        self.pixels = pixels
        self.noise_names = noise_buffers(G) if noise == "random" else []
        buffers = dict(G.synthesis.named_buffers())
        self.inputs = [
            ProgramInput("w", (1, G.num_ws, G.w_dim), batched=True),
            *(ProgramInput(f"noise_{name.removesuffix('.noise_const').replace('.', '_')}",
                           (1, 1, *buffers[name].shape), batched=True) for name in self.noise_names),
        ]

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        """Images of w [N, num_ws, w_dim] (and noise [N, 1, H, W] of every layer)."""
        w, *noise = args
        given = dict(zip(self.noise_names, noise, strict=True))
        call = {"noise_mode": self.noise_mode, "force_fp32": True}
        images = torch.func.functional_call(self.synthesis, given, (w,), call)
        return as_pixels(images, self.pixels)


class StyleProgram(Program):
    """z, (label,) truncation (and noise) → image: mapping and synthesis in one."""

    output = "image"

    def __init__(
        self, G: Generator, noise: str = "const", pixels: str = "float", choices: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.mapping = MappingProgram(G, choices)
        self.synthesis = SynthesisProgram(G, noise, pixels)
        self.pixels = pixels
        self.inputs = [*self.mapping.inputs, *self.synthesis.inputs[1:]]

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        """Images of z [N, z_dim] (, label [N, c_dim]), truncation [] (and noise [N, 1, H, W])."""
        count = len(self.mapping.inputs)
        return self.synthesis(self.mapping(*args[:count]), *args[count:])


class LatentProgram(Program):
    """z, label, truncation → image, for generators without w, such as BigGAN: the truncation is a factor of z."""

    output = "image"

    def __init__(self, G: Generator, pixels: str = "float", choices: torch.Tensor | None = None) -> None:
        super().__init__()
        self.G = G
        self.pixels = pixels
        self.labels = _Labels(choices)
        self.inputs = latent_inputs(G, choices)

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        """Images of z [N, z_dim] (, label [N, c_dim]) and truncation []."""
        z, *label, truncation = args
        return as_pixels(self.G(z * truncation, self.labels(z, label)), self.pixels)


def has_styles(G: Generator) -> bool:
    """Whether a generator has an intermediate latent w: a mapping and a synthesis network."""
    return hasattr(G, "mapping") and hasattr(G, "synthesis")


def latent_inputs(G: Generator, choices: torch.Tensor | None = None) -> list[ProgramInput]:
    """z, the label if the generator knows classes, and the truncation.

    Args:
        G: generator.
        choices: labels [n, c_dim] that the program knows: no label is given where there is one, and [N, n] where there
            are more; None is any label [N, c_dim].
    """
    size = G.c_dim if choices is None else len(choices) if len(choices) > 1 else 0
    label = [ProgramInput("label", (1, size), batched=True)] if size else []
    return [ProgramInput("z", (1, G.z_dim), batched=True), *label, ProgramInput("truncation", (), batched=False)]


def noise_buffers(G: Generator) -> list[str]:
    """Names of the buffers of the synthesis network that hold its constant noise."""
    return [name for name, _ in G.synthesis.named_buffers() if name.endswith("noise_const")]


def as_pixels(images: torch.Tensor, pixels: str) -> torch.Tensor:
    """Images [N, C, R, R] as they are ("float"), or as uint8 [N, R, R, C] ("uint8"), cut off as image files are."""
    if pixels == "float":
        return images
    return (images * 127.5 + GENERATED).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def generator_program(
    G: Generator,
    source: str = "z",
    noise: str = "const",
    pixels: str = "float",
    choices: torch.Tensor | None = None,
) -> Program:
    """The program that a file holds, for any generator.

    Args:
        G: generator on the CPU, in eval mode.
        source: "z" for mapping and synthesis together, "w" for the synthesis network alone.
        noise: one of NOISE_MODES.
        pixels: one of PIXELS.
        choices: labels [n, c_dim] that the program is restricted to; see `latent_inputs`.

    Raises:
        UserError: the network cannot be exported so; names the argument.
    """
    _check_choices(source, noise, pixels)
    if not hasattr(G, "z_dim"):
        raise UserError(f"expected a generator, found a {type(G).__name__}", field="network")
    if noise == "random" and (not has_styles(G) or not noise_buffers(G)):
        raise UserError(f"a {type(G).__name__} of this kind has no noise; use `noise=const`", field="noise")
    if has_styles(G):
        if source == "w":
            if choices is not None:
                raise UserError("a program that takes w has no label; use `input=z`", field="class_idx")
            return SynthesisProgram(G, noise, pixels).eval()
        if getattr(G.mapping, "w_avg", None) is None:
            raise UserError("this network keeps no average w, which truncation needs; export it with `input=w`",
                            field="network")
        return StyleProgram(G, noise, pixels, choices).eval()
    if source == "w":
        raise UserError(f"only style-based generators have w, this is a {type(G).__name__}; use `input=z`",
                        field="input")
    return LatentProgram(G, pixels, choices).eval()


def _check_choices(source: str, noise: str, pixels: str) -> None:
    for field, value, known in (("input", source, INPUTS), ("noise", noise, NOISE_MODES), ("pixels", pixels, PIXELS)):
        if value not in known:
            raise UserError(f"expected {_either(known)}, found {value!r}", field=field)


def _either(values: Sequence[str]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def trace(program: Program) -> torch.export.ExportedProgram:
    """The program as a graph for any batch size.

    Raises:
        UserError: torch cannot trace the network; quotes the first line of its reason.
    """
    with torch.no_grad(), quiet():
        try:
            shapes = (program.dynamic_shapes(),)  # of *args
            return torch.export.export(program, program.examples(2), dynamic_shapes=shapes, strict=False)
        except Exception as error:  # of many kinds, by what the network does
            reason = str(error).strip().splitlines()
            raise UserError(f"this network cannot be exported: {type(error).__name__}: {reason[0] if reason else ''}",
                            field="network") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters say about torch's own code and about packages that are not needed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
