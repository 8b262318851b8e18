"""A small StyleGAN3 on the CPU in minutes: it copies the images of the demo's StyleGAN2 teacher, without data.

    python -m benchmarks.stylegan3_teacher --dest=stylegan3.pkl --kimg=8

Six layers, 32 channels, configuration T. The mapping network is the teacher's; the synthesis network learns the
teacher's images of the same w in pixels and in the features of its discriminator, which is then the discriminator of
the new file. Such a network is no better than what it copies, but it is a trained StyleGAN3, to be compressed.
"""
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from dnnlib.cli import Command
from dnnlib.progress import Progress
from metrics.perceptual import block_distance, block_features
from training.checkpoints.pickles import open_networks, save_networks, snapshot_data
from training.ema import update_ema
from training.networks_stylegan3 import Generator, SynthesisLayer

TEACHER = Path(__file__).resolve().parents[1] / "demo/teacher/fmnist32.pkl"
OPTIONS = {"channel_base": 1024, "channel_max": 32, "num_layers": 6, "margin_size": 3}
BATCH, LR, WARMUP_STEPS, DECAY = 8, 3e-3, 50, 0.3  # DECAY: last part, over which the rate falls to 0
EMA_IMAGES = 560


def like(teacher: Any) -> Any:
    """A new StyleGAN3 for the images and latents of a StyleGAN2, with its mapping network."""
    sizes = {name: getattr(teacher, name) for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")}
    G: Any = Generator(**sizes, mapping_kwargs={"num_layers": teacher.mapping.num_layers}, **OPTIONS)
    G.mapping.load_state_dict(teacher.mapping.state_dict())
    with torch.no_grad():
        set_beta(G, 0)
        G(torch.randn([64, teacher.z_dim]), None, update_emas=True)  # each layer's magnitude as it is
        G.mapping.load_state_dict(teacher.mapping.state_dict())
        set_beta(G, 0.5 ** (BATCH / 20000))
    return G


def set_beta(G: Any, beta: float) -> None:
    """The rate of the moving averages of the layers' magnitudes."""
    for layer in G.modules():
        if isinstance(layer, SynthesisLayer):
            layer.magnitude_ema_beta = beta


def rate(step: int, steps: int) -> float:
    """The learning rate: a rise, a plateau, a fall to 0."""
    return LR * min(1, (step + 1) / WARMUP_STEPS) * min(1, (steps - step) / (DECAY * steps))


def copied(teacher: Any, D: torch.nn.Module, kimg: float) -> Sequence[Any]:
    """G and G_ema after so many thousands of images."""
    G = like(teacher)
    G_ema = copy.deepcopy(G).eval().requires_grad_(False)
    opt = torch.optim.Adam(G.synthesis.parameters(), betas=(0.9, 0.99))
    steps = max(round(kimg * 1000 / BATCH), 1)
    with Progress(steps, "copying", unit="step") as bar:
        for step in range(steps):
            opt.param_groups[0]["lr"] = rate(step, steps)
            with torch.no_grad():
                ws = teacher.mapping(torch.randn([BATCH, teacher.z_dim]), None)
                wanted = teacher.synthesis(ws, noise_mode="const")
                features = block_features(D, wanted)
            made = G.synthesis(ws[:, :1].repeat(1, G.num_ws, 1), update_emas=True)
            loss = (made - wanted).abs().mean() + block_distance(block_features(D, made), features).mean()
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            update_ema(G_ema, G, 0.5 ** (BATCH / min(EMA_IMAGES, 0.05 * step * BATCH)) if step else 0, False)
            bar.desc = f"copying (loss {loss.item():.3f})"
            bar.update()
    return G, G_ema


@click.command(cls=Command)
@click.option("--dest", help="Network pickle to write.", required=True, metavar="FILE")
@click.option("--kimg", help="Thousands of images to learn from.", type=click.FloatRange(min=0, min_open=True),
              default=8, show_default=True, metavar="NUMBER")
def main(dest: str, kimg: float) -> None:
    """Train a small StyleGAN3 that draws the images of the demo's teacher."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    nets = open_networks(str(TEACHER))
    D = nets["D"].requires_grad_(False)
    G, G_ema = copied(nets["G_ema"].requires_grad_(False), D, kimg)
    save_networks(snapshot_data({"G": G, "D": D, "G_ema": G_ema}, nets["training_set_kwargs"]), dest)
    click.echo(f"{dest}: a copy of {TEACHER.name} after {kimg:g} kimg")


if __name__ == "__main__":
    main()
