"""Images that metrics generate and look at per second, by this tree and by another checkout, in turns.

    python benchmarks/metrics_speed.py --peer=DIR

Processor time of one thread for all metrics of a list, without the start of the process, on the demo's teacher and
data; medians of the rounds and of their ratios. The statistics of the real images are not taken from a cache.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
LISTS = ("fid50k_full", "fid50k_full,pr50k3_full", "fid50k_full,kid50k_full,pr50k3_full")
PROGRAM = """
import inspect, json, sys, time
sys.path.insert(0, "")
import legacy, torch
from metrics.metric_main import calc_metric
from metrics.options import MetricOptions
try:
    from torch_utils.devices import tune_allocator
except ImportError:
    from torch_utils.misc import tune_allocator
tune_allocator()
torch.set_num_threads(1)
data, num_gen = sys.argv[1], int(sys.argv[2])
with open("demo/teacher/fmnist32.pkl", "rb") as file:
    G = legacy.load_network_pkl(file)["G_ema"]
options = {"G": G, "dataset_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": data},
           "num_gen": num_gen, "detectors": ["metrics/detectors/clothing32.pt"], "device": "cpu", "cache": False}
for line in sys.stdin:
    begin = time.process_time()
    further = {}
    if "shared" in inspect.signature(MetricOptions).parameters and "," in line:
        from metrics.shared_features import SharedFeatures
        further["shared"] = SharedFeatures()
    values = {}
    for name in line.strip().split(","):
        values.update(calc_metric(name, **options, **further).results)
    print(json.dumps([time.process_time() - begin, values]), flush=True)
"""


class Worker:
    """A process of one checkout that runs metrics on request."""

    def __init__(self, tree: Path, data: Path, num_gen: int) -> None:
        command = [sys.executable, "-c", PROGRAM, str(data), str(num_gen)]
        self.process = subprocess.Popen(command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    def run(self, metrics: str) -> float:
        """Seconds for a list of metrics."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(metrics + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())[0]


@click.command()
@click.option("--peer", required=True, help="Another checkout", metavar="DIR",
              type=click.Path(exists=True, file_okay=False))
@click.option("--pairs", default=3, show_default=True, help="Rounds that count", metavar="INT")
@click.option("--num-gen", default=1000, show_default=True, help="Generated images", metavar="INT")
@click.option("--num-real", default=500, show_default=True, help="Real images", metavar="INT")
def main(peer: str, pairs: int, num_gen: int, num_real: int) -> None:
    """Prints images per second and ratio for each list of metrics."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "clothing.zip"
        source = ROOT / "demo" / "data" / "t10k-images-idx3-ubyte.gz"
        subprocess.run([sys.executable, "dataset_tool.py", f"--source={source}", f"--dest={data}",
                        f"--max-images={num_real}"], cwd=ROOT, check=True, capture_output=True)  # fmt: skip
        workers = [Worker(tree, data, num_gen) for tree in (ROOT, Path(peer).resolve())]
        for metrics in LISTS:
            rounds = [[worker.run(metrics) for worker in workers] for _ in range(pairs + 1)][1:]
            images = (num_gen + num_real) * (metrics.count(",") + 1)
            ours, others = (statistics.median(images / turn[i] for turn in rounds) for i in (0, 1))
            ratio = statistics.median(other / own for own, other in rounds)
            click.echo(f"{metrics}: {ours:.0f} images/s, peer {others:.0f}, ratio {ratio:.2f}")
        for worker in workers:
            worker.process.communicate()


if __name__ == "__main__":
    main()
