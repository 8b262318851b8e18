"""A step of distillation against Gmain and Dmain of an ordinary training, of this tree or of another checkout.

    python benchmarks/distillation_step.py --peer=DIR

Processor time on one thread, in turns; medians of the rounds and of their ratios. The student has half the width of its
teacher; teacher and ordinary networks are of one size, and batches are equal.
"""
import statistics
import sys
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.cpu import PEER, Worker

SIZES = ("32 px, batch 32", "256 px, batch 4")


@click.command()
@click.option("--peer", help="Checkout whose training is measured.", show_default="this one", metavar="DIR",
              type=click.Path(exists=True, file_okay=False))
@click.option("--pairs", default=7, show_default=True, help="Rounds that count", metavar="INT")
@click.option("--only", help="Only sizes whose name contains this", default="32 px", show_default=True, metavar="TEXT")
def main(peer: str | None, pairs: int, only: str) -> None:
    """Prints seconds and ratio for each size."""
    for size in SIZES:
        if only not in size:
            continue
        variant = PEER if peer else "native"
        with (Worker(f"distillation step {size}", "native", 1) as step,
              Worker(f"training iteration {size}", variant, 1, peer) as training):  # fmt: skip
            rounds = [(step.run(), training.run()) for _ in range(pairs + 1)][1:]
        pairs_of = [(a["cpu"], b["Gmain cpu"], b["Dmain cpu"]) for a, b in rounds]
        step_s, g_s, d_s = (statistics.median(values) for values in zip(*pairs_of))
        ratio = statistics.median(a / (g + d) for a, g, d in pairs_of)
        click.echo(f"{size}: step {step_s:.3f} s, Gmain {g_s:.3f} s, Dmain {d_s:.3f} s: ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
