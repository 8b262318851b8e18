"""Prints the largest difference from every reference number in tests/golden, as one table.

    python -m tests.golden_report [FILE...]

FILE is the name of a file in tests/golden without its suffix; all of them by default. Exit status 1 if a difference is
above its tolerance.
"""
import ast
import dataclasses
import sys
import unittest.mock
from collections.abc import Iterator, Mapping
from typing import Any

import click
import numpy as np
import torch

from tests.helpers import GOLDEN, golden
from torch_utils import checkpoint
from torch_utils.ops import bias_act, conv2d_resample, filtered_lrelu, upfirdn2d
from training import networks_stylegan3
from training.augment import AUGPIPE_PRESETS, AugmentPipe
from training.biggan import checkpoints as biggan_checkpoints
from training.checkpoints import pickles, rosinality
from training.checkpoints.rebuilding import rebuild
from training.loss import Part, Step, StyleGAN2Loss
from training.stylegan3 import records

PHASES = ("Gmain", "Greg", "Dmain", "Dreg")
BIAS_ACT_OPTIONS: list[dict[str, float]] = [{}, {"alpha": 0.3, "gain": 2, "clamp": 0.5}, {"alpha": 0.1, "gain": 0.7}]


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity of one file: the largest difference, and the one that is allowed."""

    file: str
    quantity: str
    difference: float
    allowed: float

    def cells(self) -> list[str]:
        """What the table shows."""
        verdict = "ok" if self.difference <= self.allowed else "TOO LARGE"
        return [self.file, self.quantity, f"{self.difference:.1e}", f"{self.allowed:.1e}", verdict]


def _max(result: torch.Tensor, reference: np.ndarray) -> float:
    assert result.shape == reference.shape, (result.shape, reference.shape)
    return float(np.abs(result.detach().numpy() - reference).max())


def of_image(file: str, quantity: str, result: torch.Tensor, reference: np.ndarray) -> Row:
    """Images and ws may be off by 1e-4 of the reference's standard deviation."""
    return Row(file, quantity, _max(result, reference), 1e-4 * float(reference.std()))


def of_logits(file: str, quantity: str, result: torch.Tensor, reference: np.ndarray, relative: float = 1e-4) -> Row:
    """Logits may be off by a part of the largest reference."""
    return Row(file, quantity, _max(result, reference), relative * float(np.abs(reference).max()))


def _networks(file: str) -> dict[str, Any]:
    with open(GOLDEN / f"{file}.pkl", "rb") as f:
        return pickles.load_networks(f)


def _tensors(ref: Mapping[str, np.ndarray], *names: str) -> list[torch.Tensor]:
    return [torch.from_numpy(ref[name]) for name in names]


@torch.no_grad()
def sg2ada(file: str) -> Iterator[Row]:
    """Networks of an SG2-ADA pickle."""
    nets, ref = _networks(file), golden(file)
    G, D = nets["G_ema"], nets["D"]
    z, c, img, real = _tensors(ref, "z", "c", "img_const", "real")
    ws = G.mapping(z, c)
    options = {"noise_mode": "const", "force_fp32": True}
    yield of_image(file, "ws", ws, ref["ws"])
    cut = G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=4)
    yield of_image(file, "ws, psi 0.7, cutoff 4", cut, ref["ws_psi0.7_cutoff4"])
    yield of_image(file, "image, noise const", G.synthesis(ws, **options), ref["img_const"])
    yield of_image(file, "image, fused", G.synthesis(ws, fused_modconv=True, **options), ref["img_const"])
    yield of_image(file, "image, noise none", G.synthesis(ws, noise_mode="none", force_fp32=True), ref["img_none"])
    yield of_image(file, "image, psi 0.5", G(z, c, truncation_psi=0.5, **options), ref["img_psi0.5"])
    yield of_image(file, "image of the raw G", nets["G"](z, c, **options), ref["G_img_const"])
    yield of_logits(file, "logits, generated", D(img, c, force_fp32=True), ref["logits"])
    yield of_logits(file, "logits, real", D(real, c, force_fp32=True), ref["logits_real"])


def gradients(file: str) -> Iterator[Row]:
    """Gradients of the four phases: sum, sum of absolute values and norm of every parameter's, relative."""
    nets, ref = _networks(file), golden(file)
    G, D = nets["G_ema"].train(), nets["D"].train()
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.zero_()
    loss = StyleGAN2Loss(torch.device("cpu"), G, D, r1_gamma=3, style_mixing_prob=0)
    loss.pl_mean.fill_(0.1)
    (noise,) = _tensors(ref, "pl_noise_unit")
    drawn = torch.randn_like

    def reference_noise(x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return noise if x.shape == noise.shape else drawn(x, **kwargs)

    for phase in PHASES:
        module = G if phase[0] == "G" else D
        module.requires_grad_(True).zero_grad(set_to_none=True)
        with unittest.mock.patch.object(torch, "randn_like", reference_noise):
            step = Step(*_tensors(ref, "real", "c", "z", "c"), gain=1, cur_nimg=0)
            loss.accumulate_gradients(phase[0], Part(phase[1:]), step)
        module.requires_grad_(False)
        worst = 0.0
        for name, parameter in module.named_parameters():
            triple = ref.get(f"grad/{phase}/{name}")
            if triple is not None:
                worst = max(worst, _relative(parameter, triple))
        yield Row(file, f"gradients of {phase}, relative", worst, 1e-4)
        yield of_image(file, f"w_avg after {phase}", G.mapping.w_avg, ref[f"after/{phase}/w_avg"])
        expected = float(ref[f"after/{phase}/pl_mean"])
        yield Row(file, f"pl_mean after {phase}", abs(float(loss.pl_mean) - expected), 1e-5 * expected)


def _relative(parameter: torch.Tensor, triple: np.ndarray) -> float:
    """Largest relative difference of (sum, sum of absolute values, norm); the second is the scale of the first."""
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    result = torch.stack([gradient.sum(), gradient.abs().sum(), gradient.norm()]).double().numpy()
    scale = np.maximum(np.abs(triple[[1, 1, 2]]), 1e-8)
    return float((np.abs(result - triple) / scale).max())


@torch.no_grad()
def other_pickle(file: str) -> Iterator[Row]:
    """Networks of the stylegan3 tree's and of TensorFlow-era pickles."""
    nets, ref = _networks(file), golden(file)
    psi, key = (0.6, "img_psi06_const") if file.startswith("sg3") else (0.7, "img_psi07_const")
    z, c = _tensors(ref, "z", "c")
    options = {"noise_mode": "const", "force_fp32": True}
    img = nets["G_ema"](z, c, truncation_psi=psi, **options)
    yield of_image(file, f"image, psi {psi}", img, ref[key])
    if "G_img_const" in ref:
        yield of_image(file, "image of the raw G", nets["G"](z, c, **options), ref["G_img_const"])
    yield of_logits(file, "logits", nets["D"](img, c, force_fp32=True), ref["logits"])


@torch.no_grad()
def biggan(file: str) -> Iterator[Row]:
    """A BigGAN's state dicts."""
    ref = golden(file)
    G = biggan_checkpoints.load_generator(GOLDEN / f"{file}_G_ema.pth")
    D = biggan_checkpoints.load_discriminator(GOLDEN / f"{file}_D.pth")
    z, img = _tensors(ref, "z", "img")
    labels = torch.nn.functional.one_hot(torch.from_numpy(ref["y"]), G.c_dim).float()
    yield of_logits(file, "image", G(z, labels), ref["img"], 1e-5)
    yield of_logits(file, "logits", D(img, labels), ref["logits"], 1e-5)


@torch.no_grad()
def augment(file: str) -> Iterator[Row]:
    """The augmentation pipeline, the worst of all groups at each percentile, relative to the standard deviation."""
    ref = golden(file)
    worst: dict[str, float] = {}
    for key in (key for key in ref if key != "images"):
        name, percentile = key.split("/")
        name = name.removeprefix("gray_")
        pipe = AugmentPipe(**AUGPIPE_PRESETS.get(name, {name: 1}))
        pipe.p.fill_(1)
        (images,) = _tensors(ref, "images")
        result = pipe(images[:, : ref[key].shape[1]], debug_percentile=float(percentile))
        relative = _max(result, ref[key]) / float(ref[key].std())
        worst[percentile] = max(worst.get(percentile, 0.0), relative)
    for percentile, relative in sorted(worst.items()):
        yield Row(file, f"all groups at {percentile}, relative", relative, 1e-4)


@torch.no_grad()
def ops(file: str) -> Iterator[Row]:
    """Single ops, the worst of all cases."""
    ref = golden(file)
    x, b, f4 = _tensors(ref, "x", "b", "f4")
    cases = {op: [key.removesuffix("/args") for key in ref if key.startswith(op + "/") and key.endswith("/args")]
             for op in ("upfirdn2d", "conv2d_resample")}
    worst = 0.0
    for case in cases["upfirdn2d"]:
        args = ast.literal_eval(str(ref[f"{case}/args"]))
        worst = max(worst, _max(upfirdn2d.upfirdn2d(x, *_tensors(ref, args.pop("f")), **args), ref[f"{case}/y"]))
    yield Row(file, "upfirdn2d", worst, 1e-5)
    for name in ("filter2d", "upsample2d", "downsample2d"):
        result = getattr(upfirdn2d, name)(x, f4, padding=[1, 0, 2, -1], gain=1.5)
        yield Row(file, name, _max(result, ref[f"{name}/y"]), 1e-5)
    yield Row(file, "bias_act", max(
        _max(bias_act.bias_act(x, b, act=act, **options), ref[f"bias_act/{act}/{number}"])
        for act in bias_act.activation_funcs for number, options in enumerate(BIAS_ACT_OPTIONS)
    ), 1e-5)
    worst = 0.0
    for case in cases["conv2d_resample"]:
        args = ast.literal_eval(str(ref[f"{case}/args"]))
        f, (w,) = args.pop("f"), _tensors(ref, args.pop("w"))
        result = conv2d_resample.conv2d_resample(x, w, _tensors(ref, f)[0] if f else None, **args)
        worst = max(worst, _max(result, ref[f"{case}/y"]) / max(float(ref[f"{case}/y"].std()), 1))
    yield Row(file, "conv2d_resample", worst, 1e-5)


@torch.no_grad()
def rosinality_file(file: str) -> Iterator[Row]:
    """Networks of a file in rosinality's layout, and the bytes of its tensors after a round trip."""
    ref, path = golden(file), next(GOLDEN.glob(f"{file}.pt*"))
    with open(path, "rb") as f:
        data = checkpoint.read(f, keep_foreign=True)
    networks = {role: rosinality.build(role, data) for role in rosinality.ROLES}
    G, D = networks["G_ema"], networks["D"]
    z, img = _tensors(ref, "z", "img_const")
    ws = G.mapping(z, None)
    yield of_logits(file, "w", ws[:, 0], ref["style"], 1e-5)
    yield of_logits(file, "image, noise const", G.synthesis(ws, noise_mode="const"), ref["img_const"], 1e-5)
    yield of_logits(file, "image, noise none", G.synthesis(ws[:2], noise_mode="none"), ref["img_zero"], 1e-5)
    yield of_logits(file, "logits", D(img, None), ref["logits"], 1e-5)
    changed = 0
    for role, key in rosinality.ROLES.items():
        again = rosinality.state_dict(role, networks[role])
        changed += sum(again[name].numpy().tobytes() != tensor.contiguous().numpy().tobytes()
                       for name, tensor in data[key].items())
    yield Row(file, "tensors changed by a round trip", changed, 0)


def _stylegan3(file: str) -> Any:
    """G_ema of a StyleGAN3 pickle."""
    with open(GOLDEN / f"{file}.pkl", "rb") as f:
        record = checkpoint.read(f)["G_ema"]
    return rebuild(networks_stylegan3.Generator, records.generator_arguments(record), record.tensors())


def _of_max(file: str, quantity: str, actual: torch.Tensor, reference: np.ndarray, allowed: float) -> Row:
    """The largest difference relative to the largest reference."""
    return Row(file, quantity, _max(actual, reference) / float(np.abs(reference).max()), allowed)


def stylegan3(file: str) -> Iterator[Row]:
    """A StyleGAN3 generator: latents and images, and gradients of both orders in float64."""
    G, ref = _stylegan3(file), golden(file)
    z, c = _tensors(ref, "z", "c")
    scale = float(ref["img_const"].std())
    with torch.no_grad():
        ws = G.mapping(z, c)
        yield _of_max(file, "ws, relative", ws, ref["ws"], 1e-6)
        images = {"image": (G.synthesis(ws), "img_const"),
                  "image, psi 0.5": (G(z[:2], c[:2], truncation_psi=0.5), "img_psi0.5")}
        for i in "01":
            G.synthesis.input.transform.copy_(torch.from_numpy(ref[f"transform{i}"]))
            images[f"image, transform {i}"] = G.synthesis(ws[:2]), f"img_transform{i}"
        G.synthesis.input.transform.copy_(torch.eye(3))
    for quantity, (image, key) in images.items():
        yield Row(file, quantity, _max(image, ref[key]), 2e-5 * scale)
    G.double().requires_grad_(True)
    latents, direction = (t.double() for t in _tensors(ref, "ws", "gy"))
    latents = latents[:2].clone().requires_grad_()
    losses = {"g1": (G.synthesis(latents) * direction).mean()}
    total = (G.synthesis(latents) * direction).sum() / direction.shape[2:].numel() ** 0.5
    (by_w,) = torch.autograd.grad(total, latents, create_graph=True)
    losses["g2"] = (by_w.square().sum(dim=2).mean(dim=1).sqrt() - 0.1).square().mean()
    for order, (group, loss) in enumerate(losses.items(), start=1):
        G.zero_grad()
        latents.grad = None
        loss.backward()
        worst = _max(latents.grad, ref[f"{group}/ws"]) / float(np.abs(ref[f"{group}/ws"]).max())
        triples = {name: ref[f"{group}/{name}"] for name, _ in G.named_parameters() if f"{group}/{name}" in ref}
        largest = max(triple[2] for triple in triples.values())
        for name, p in G.named_parameters():
            if name in triples and triples[name][2] > 1e-3 * largest:
                worst = max(worst, _relative(p, triples[name]))
        yield Row(file, f"gradients of order {order}, relative", worst, 1e-9)


@torch.no_grad()
def stylegan3_layers(file: str) -> Iterator[Row]:
    """Filters and activations of the layers of a StyleGAN3 generator."""
    name = file.removesuffix("_layers")
    G, ref = _stylegan3(name), golden(file)
    designed = networks_stylegan3.Generator(**ast.literal_eval(str(golden(name)["config"]))).synthesis
    filters = [key for key in ref if key.startswith("filter/")]
    yield Row(file, "filters, relative", max(
        _max(designed.get_submodule(layer).get_buffer(f"{side}_filter"), ref[f"filter/{layer}/{side}"])
        / float(np.abs(ref[f"filter/{layer}/{side}"]).max())
        for layer, side in (key.split("/")[1:] for key in filters)
    ), 1e-6)
    collected: dict[str, torch.Tensor] = {}
    for layer, module in G.synthesis.named_children():
        module.register_forward_hook(lambda module, x, y, layer=layer: collected.update({layer: y[0]}))
    G.synthesis(torch.from_numpy(golden(name)["ws"])[:1])
    worst = {"act": 0.0, "actstat": 0.0}
    for layer, y in collected.items():
        statistics = torch.stack([y.mean([1, 2]), y.square().mean([1, 2]).sqrt()], dim=1)
        for kind, value in (("act", y[:2]), ("actstat", statistics)):
            reference = ref.get(f"{kind}/{layer}")
            if reference is not None:
                worst[kind] = max(worst[kind], _max(value, reference) / float(np.abs(reference).max()))
    yield Row(file, "activations, relative", max(worst.values()), 1e-5)


def alias_free_ops(file: str) -> Iterator[Row]:
    """filtered_lrelu and its gradients of both orders, the worst of all cases, relative to max |reference|."""
    ref = golden(file)
    worst = dict.fromkeys(("y", "dx", "db", "ddv"), 0.0)
    for case in (key.removesuffix("/v") for key in ref if key.endswith("/v") and not key.startswith("modconv")):
        args = ast.literal_eval(str(ref[f"{case}/args"]))
        fu, fd = (None if args[name] == "none" else _tensors(ref, args[name])[0] for name in ("fu", "fd"))
        x, b, v = (t.requires_grad_() for t in _tensors(ref, "x", "b", f"{case}/v"))
        y = filtered_lrelu.filtered_lrelu(x, b=b, **{**args, "fu": fu, "fd": fd})
        dx, db = torch.autograd.grad((y * v).sum(), [x, b], create_graph=True)
        p, q = _tensors(ref, f"{case}/p", f"{case}/q")
        (ddv,) = torch.autograd.grad((dx * p).sum() + (db * q).sum(), v)
        for name, actual in (("y", y), ("dx", dx), ("db", db), ("ddv", ddv)):
            reference = ref[f"{case}/{name}"]
            worst[name] = max(worst[name], _max(actual, reference) / float(np.abs(reference).max()))
    for name, relative in worst.items():
        yield Row(file, f"filtered_lrelu: {name}, relative", relative, 1e-5)


REPORTS = {
    **{file: (sg2ada, gradients) for file in ("ffhq64", "cifar32", "gray32")},
    **{file: (other_pickle,) for file in ("sg3tree_sg2", "tf_config_f_64", "tf_ada_cond_32")},
    **{file: (biggan,) for file in ("biggan_cifar32", "biggan_imagenet128")},
    "augment": (augment,),
    "ops": (ops,),
    "sg3ops": (alias_free_ops,),
    **{path.stem: (rosinality_file,) for path in (*GOLDEN.glob("rosinality*.pt"), *GOLDEN.glob("cagc*.pth"))},
    **{file: (stylegan3,) for file in ("sg3t64", "sg3r32", "sg3odd32")},
    **{f"{file}_layers": (stylegan3_layers,) for file in ("sg3t64", "sg3r32", "sg3odd32")},
}


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [["file", "quantity", "max difference", "allowed", ""], *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines)


@click.command()
@click.argument("files", nargs=-1, type=click.Choice(list(REPORTS)), metavar="[FILE]...")
def main(files: tuple[str, ...]) -> None:
    """Print the largest difference from every reference number in tests/golden."""
    rows = [row for file in files or REPORTS for report in REPORTS[file] for row in report(file)]
    click.echo(table(rows))
    failed = sum(row.difference > row.allowed for row in rows)
    click.echo(f"\n{len(rows)} quantities, {failed} above what is allowed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
