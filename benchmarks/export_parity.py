"""How near exported files are to their networks, for every kind of network and every format.

`python benchmarks/export_parity.py [--browser]` prints a Markdown table. ONNX files and torch programs: the largest
difference over random inputs in batches of 1, 2 and 5, in standard deviations of the images. safetensors and hub
folders: whether the images are equal to the bit. --browser adds the page in Chromium, with float32 weights: mean and
largest difference of an image in grey levels.
"""
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import click

ROOT = Path(__file__).resolve().parents[1]
BIGGANS = {  # tests.tiny_biggan.GENERATORS
    "plain32": "class embedding per layer, attention, 32 px",
    "shared32": "shared embedding, 32 px",
    "hier64": "shared and hierarchical, attention, 64 px",
    "uneven32": "uneven widths, 32 px",
}
HEAD = ["network", "ONNX", "torch program", "safetensors", "hub folder"]


def kinds() -> dict[str, Callable[[], Any]]:
    """Name → a function that makes the generator."""
    from tests import tiny, tiny_biggan
    from training.checkpoints.pickles import open_networks

    def stored(path: str) -> Callable[[], Any]:
        return lambda: open_networks(str(ROOT / path))["G_ema"]

    return {
        "StyleGAN2, skip, 16 px": lambda: tiny.tiny_generator(),
        "StyleGAN2, resnet, 16 px": lambda: tiny.tiny_generator("resnet"),
        "StyleGAN2, 3 classes, 16 px": lambda: tiny.tiny_generator(c_dim=3),
        "StyleGAN2, grey, 16 px": lambda: tiny.tiny_generator(channels=1),
        "StyleGAN2, the embedded teacher, grey, 32 px": stored("demo/teacher/fmnist32.pkl"),
        "StyleGAN3-T, 64 px": stored("tests/golden/sg3t64.pkl"),
        "StyleGAN3-R, 4 classes, 32 px": stored("tests/golden/sg3r32.pkl"),
        **{f"BigGAN, {title}": (lambda name=name: tiny_biggan.tiny_generator(name))  # type: ignore[misc]
           for name, title in BIGGANS.items()},
    }


def cells(G: Any, folder: Path, with_browser: bool) -> list[str]:
    """The cells of a network, in the order of HEAD."""
    import torch

    from training.checkpoints import pickles, safetensors_files
    from training.export import hub, onnx_file, torch_program
    from training.export.programs import generator_program

    program = generator_program(G)
    differences = (onnx_file.write(program, folder / "net.onnx").relative,
                   torch_program.write(program, folder / "net.pt2"))
    shown = [f"{difference:.1e}" if difference else "equal" for difference in differences]
    z, *label, _ = program.examples(2)
    c = label[0] if label else torch.zeros([2, 0])
    safetensors_files.write({"G_ema": G}, folder / "net.safetensors")
    hub.write({"G_ema": G}, folder / "hub", "")
    with torch.no_grad():
        expected = G(z, c, noise_mode="const")
        for path in (folder / "net.safetensors", folder / "hub"):
            again = pickles.open_networks(str(path))["G_ema"]
            shown.append("equal" if torch.equal(again(z, c, noise_mode="const"), expected) else "DIFFERENT")
    return [*shown, *([in_browser(G, folder / "page.html")] if with_browser else [])]


def in_browser(G: Any, path: Path) -> str:
    """Mean and largest difference of the page's first image from Python's."""
    import numpy as np
    import torch

    from dnnlib.cli import seed_latents
    from tests import browser
    from training.data.images import truncated
    from training.export import web

    web.write({"network": G}, path, "parity", "float32")
    with browser.Page() as page:
        page.open(path.as_uri())
        page.wait("document.body?.dataset.ready === '1'", 600)
        assert not page.errors, page.errors
        pixels = page.run("(canvas => Array.from(canvas.getContext('2d').getImageData(0, 0, canvas.width, "
                          "canvas.height).data))(document.querySelector('canvas'))")
    shown = np.array(pixels).reshape(G.img_resolution, G.img_resolution, 4)[..., :3]
    c = torch.eye(G.c_dim)[:1] if G.c_dim else torch.zeros([1, 0])
    with torch.no_grad():
        image = truncated(G(torch.from_numpy(seed_latents([0], G.z_dim)), c, noise_mode="const"))[0].astype(int)
    errors = np.abs(shown - image)
    return f"{errors.mean():.4f}, {errors.max()}" if errors.any() else "equal"


@click.command()
@click.option("--browser", "with_browser", help="Look at the page in Chromium, too.", is_flag=True)
def main(with_browser: bool) -> None:
    """Print how near exported files are to their networks."""
    head = [*HEAD, *(["page"] if with_browser else [])]
    click.echo(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name, make in kinds().items():
        with tempfile.TemporaryDirectory() as folder:
            click.echo(f"| {' | '.join([name, *cells(make(), Path(folder), with_browser)])} |")


if __name__ == "__main__":
    main()
