"""Size and speed of exported generators: plain torch, native CPU path, onnxruntime, WebAssembly in a browser.

`python benchmarks/deploy.py NETWORK...` prints a Markdown table of a network and of its slice of half the width, whose
weights do not matter here. NETWORK is a file, or random:64, random:256 or random:1024 for random weights in the shape
of a network of that size. Every figure is a median over single images on one thread: processor time, which other
programs on the machine disturb less, and the time on the clock. --browser adds Chromium, with one thread, too; its
processor time is the mean of all its processes.
"""
import functools
import http.server
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import click

SECONDS = 2.0  # per figure, at least MIN_CALLS calls
MIN_CALLS, MAX_CALLS = 3, 200
HEAD = ("network", "path", "weights", "file", "processor ms", "clock ms", "images/s")
WEIGHTS = ("float32", "float16", "int8")
# Side → channel_base, channel_max: of the colour teacher of the experiments, of paper256, and of config-f.
SHAPES = {64: (2048, 128), 256: (16384, 512), 1024: (32768, 512)}

Times = tuple[float, float]  # median milliseconds per call: processor, clock


def measured(work: Callable[[], object]) -> Times:
    """The times of a call, after one that does not count."""
    work()
    processor: list[float] = []
    clock: list[float] = []
    while len(clock) < MIN_CALLS or (sum(clock) < SECONDS * 1000 and len(clock) < MAX_CALLS):
        starts = time.process_time(), time.perf_counter()
        work()
        processor.append((time.process_time() - starts[0]) * 1000)
        clock.append((time.perf_counter() - starts[1]) * 1000)
    return statistics.median(processor), statistics.median(clock)


def row(name: str, path: str, weights: str, size: int, times: Times) -> str:
    """A row of the table."""
    cells = (name, path, weights, f"{size / 2**20:.2f} MiB", f"{times[0]:.2f}", f"{times[1]:.2f}",
             f"{1000 / times[1]:.1f}")
    return f"| {' | '.join(cells)} |"


def rows(name: str, G: Any, with_browser: bool) -> Iterator[str]:
    """The rows of a generator."""
    import torch

    from torch_utils.ops import cpu_kernels
    from training.checkpoints import safetensors_files
    from training.export import onnx_file, web
    from training.export.programs import generator_program

    program = generator_program(G)
    args = program.examples(1)
    with tempfile.TemporaryDirectory() as folder:
        safetensors_files.write({"G_ema": G}, Path(folder, "net.safetensors"))
        size = Path(folder, "net.safetensors").stat().st_size
    with torch.no_grad():
        for path, enabled in (("torch, plain ops", False), ("torch, native CPU ops", True)):
            cpu_kernels.enabled = enabled
            yield row(name, path, "float32", size, measured(lambda: program(*args)))
    whole = onnx_file.build(program)
    for weights in WEIGHTS:
        content = onnx_file.with_weights(whole, weights)
        session = onnx_file.open_session(content, threads=1)
        times = measured(lambda session=session: onnx_file.run(session, program, args))  # type: ignore[misc]
        yield row(name, "onnxruntime", weights, len(content), times)
    if with_browser:
        about, files = web.network_files(G, "generator", "float32")
        for weights in WEIGHTS:
            own = {file: onnx_file.with_weights(content, weights) for file, content in files.items()}
            size = sum(map(len, own.values()))
            yield row(name, "Chromium, WebAssembly", weights, size, browser_times(about, own))


def browser_times(about: dict[str, Any], files: dict[str, bytes]) -> Times:
    """The times of an image on the page of a network."""
    from tests import browser
    from training.export import web

    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        web.write_page([about], {**web.runtime_files(), **files}, site, "benchmark", "")
        with served(site) as address, browser.Page() as page:
            page.open(address)
            page.wait("document.body?.dataset.ready === '1'", 600)
            assert not page.errors, page.errors
            processor, clock = [], []
            while len(clock) <= MIN_CALLS or (sum(clock) < SECONDS * 1000 and len(clock) < MAX_CALLS):
                before, start = page.run("document.body.dataset.drawn"), page.processor_seconds()
                page.run("document.getElementById('next').click()")
                page.wait(f"document.body.dataset.drawn !== '{before}'", 600)
                processor.append((page.processor_seconds() - start) * 1000)
                clock.append(float(page.run("document.querySelector('figcaption').textContent").split()[-2]))
    return statistics.fmean(processor[1:]), statistics.median(clock[1:])  # processor time comes in steps of 10 ms


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder under an address of this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Says nothing."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def opened(network: str) -> tuple[str, Any]:
    """The name and the generator that NETWORK stands for."""
    from training import networks
    from training.checkpoints.pickles import open_networks

    kind, _, side = network.partition(":")
    if kind != "random":
        G = open_networks(network)["G_ema"]
        return f"{Path(network).stem}, {G.img_resolution} px", G
    if not side.isdigit() or int(side) not in SHAPES:
        raise click.UsageError(f"expected random:{', random:'.join(map(str, SHAPES))} or a file, found {network}")
    base, most = SHAPES[int(side)]
    G = networks.Generator(z_dim=512, c_dim=0, w_dim=512, img_resolution=int(side), img_channels=3,
                           mapping_kwargs={"num_layers": 8 if int(side) > 64 else 2},
                           synthesis_kwargs={"channel_base": base, "channel_max": most})
    return f"random weights, {side} px", G.eval().requires_grad_(False)


@click.command()
@click.argument("generators", nargs=-1, required=True, metavar="NETWORK...")
@click.option("--browser", "with_browser", help="Measure in Chromium, too.", is_flag=True)
def main(generators: tuple[str, ...], with_browser: bool) -> None:
    """Print size and speed of generators and of their slices of half the width.

    NETWORK is a network file, or random:64, random:256 or random:1024.
    """
    import torch

    from dgl.student import resized

    if with_browser and shutil.which("chromium") is None:
        raise click.UsageError("--browser: there is no chromium here")
    torch.set_num_threads(1)
    click.echo(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for network in generators:
        name, G = opened(network)
        for role, own in (("teacher", G), ("student", resized(G, Fraction(1, 2)).eval().requires_grad_(False))):
            for line in rows(f"{name}, {role}", own, with_browser):
                click.echo(line)


if __name__ == "__main__":
    main()
