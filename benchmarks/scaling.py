"""What several GPUs would do, calculated from counted operations and bytes; nothing is measured, and no GPU is needed.

Operations of one training iteration, per image, in forward passes of G and D: a pass with gradients of weights and
inputs costs three, one with gradients of inputs only two. Gradients are exchanged after every phase, not during it, in
a ring: each of N GPUs sends 2 (N - 1) / N times the bytes. Regularisation counts as often as it happens, its second
derivatives as two passes with gradients.
"""
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PASS, INPUT_PASS, TWICE = 3, 2, 6  # forward passes that a pass with gradients, of inputs only, and twice, stands for
G_REG, D_REG = 1 / 4, 1 / 16  # how often the phases of regularisation happen
PATH_BATCH = 1 / 2  # part of the batch that path length is taken of


@dataclass(frozen=True)
class Work:
    """One training: multiply-adds per image, and bytes that every GPU exchanges per iteration."""

    name: str
    macs: float
    exchanged: float


def works() -> list[Work]:
    """The published method and distillation, at 256 and 1024 px, students of half the width, and plain training."""
    from dgl.student import macs_in, resized
    from training import networks

    rows = []
    for side in (256, 1024):
        widths: dict[str, Any] = {"channel_base": 32768, "channel_max": 512}
        teacher = networks.Generator(512, 0, 512, side, 3, synthesis_kwargs=widths)
        D = networks.Discriminator(0, side, 3, **widths)
        student = resized(teacher, Fraction(1, 2))
        counts = {name: (macs_in(net), 4 * sum(p.numel() for p in net.parameters()))
                  for name, net in (("T", teacher), ("S", student), ("D", D))}  # fmt: skip
        (teacher_macs, teacher_bytes), (student_macs, student_bytes), (d_macs, d_bytes) = counts.values()
        d_passes = INPUT_PASS + 2 * PASS + D_REG * TWICE  # fakes for G; fakes and reals for D; reals for R1
        g_passes = PASS + 1 + G_REG * PATH_BATCH * TWICE  # for G; the fakes for D; path length
        exchanged_d = d_bytes * (1 + D_REG)
        rows += [
            Work(f"{side} px, full width", g_passes * teacher_macs + d_passes * d_macs,
                 teacher_bytes * (1 + G_REG) + exchanged_d),
            Work(f"{side} px, half width, teacher's discriminator",
                 g_passes * student_macs + (d_passes + INPUT_PASS) * d_macs,
                 student_bytes * (1 + G_REG) + exchanged_d),
            Work(f"{side} px, half width, distillation", PASS * student_macs + teacher_macs, student_bytes),
        ]  # fmt: skip
    return rows


def images_per_second(work: Work, gpus: int, batch_gpu: int, rate: float, link: float) -> tuple[float, float]:
    """(images per second of all GPUs, part of the time in which they compute).

    Args:
        batch_gpu: images per GPU and iteration.
        rate: multiply-adds per second that one GPU sustains.
        link: bytes per second that one GPU sends.
    """
    computing = batch_gpu * work.macs / rate
    sending = work.exchanged * 2 * (gpus - 1) / gpus / link
    return gpus * batch_gpu / (computing + sending), computing / (computing + sending)


@click.command()
@click.option("--rate", default=15.0, show_default=True, help="Multiply-adds that one GPU sustains, 1e12 per second")
@click.option("--link", default=100.0, show_default=True, help="Bytes that a GPU sends to others in its machine, 1e9/s")
@click.option("--network", default=5.0, show_default=True, help="The same to those in other machines of eight, 1e9/s")
@click.option("--batch-gpu", default=8, show_default=True, help="Images per GPU and iteration")
def main(rate: float, link: float, network: float, batch_gpu: int) -> None:
    """Prints a Markdown table of images per second, and of the part of the time in which GPUs compute."""
    places = [(1, link), (8, link), (64, network)]
    click.echo("| training | GMAC per image | MB exchanged | " + " | ".join(f"{n} GPU" for n, _ in places) + " |")
    click.echo("|---" * (3 + len(places)) + "|")
    for work in works():
        cells = []
        for gpus, speed in places:
            rate_of_all, computing = images_per_second(work, gpus, batch_gpu, rate * 1e12, speed * 1e9)
            cells.append(f"{rate_of_all:,.0f} img/s ({computing:.0%})")
        click.echo(f"| {work.name} | {work.macs / 1e9:,.0f} | {work.exchanged / 1e6:,.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
