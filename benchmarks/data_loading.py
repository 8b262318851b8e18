"""Images per second: ImageFolderDataset against a bare loop of zipfile and PIL, in the same DataLoader."""
import sys
import time
import zipfile
from pathlib import Path

import click
import numpy as np
import PIL.Image
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from training.data.dataset import ImageFolderDataset


class BareZip(torch.utils.data.Dataset):
    """The least that gives the same items: no checks, no labels, one handle per worker."""

    def __init__(self, path: str):
        self.path = path
        self.archive: zipfile.ZipFile | None = None
        with zipfile.ZipFile(path) as archive:
            self.names = sorted(name for name in archive.namelist() if name.endswith(".png"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, idx: int) -> tuple[np.ndarray, np.ndarray]:
        if self.archive is None:
            self.archive = zipfile.ZipFile(self.path)
        with self.archive.open(self.names[idx]) as file:
            pixels = np.array(PIL.Image.open(file))
        image = pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1).copy()
        return image, np.zeros(0, np.float32)


def images_per_sec(dataset: torch.utils.data.Dataset, batch: int, workers: int) -> float:
    """One pass over the data set, worker start-up included."""
    start = time.perf_counter()
    num_images = sum(len(images) for images, _ in torch.utils.data.DataLoader(dataset, batch, num_workers=workers))
    return num_images / (time.perf_counter() - start)


@click.command()
@click.option("--data", required=True, help="Zip made by dataset_tool.py", metavar="ZIP")
@click.option("--batch", default=32, show_default=True, metavar="INT")
@click.option("--workers", default="0,1,2", show_default=True, help="Numbers of workers to try", metavar="LIST")
@click.option("--repeats", default=5, show_default=True, help="Passes over the data; the best counts", metavar="INT")
def main(data: str, batch: int, workers: str, repeats: int) -> None:
    """Prints a table of images per second, the best of some alternating passes."""
    candidates = {"bare loop": BareZip, "ImageFolderDataset": ImageFolderDataset}
    click.echo(f"workers  {'  '.join(f'{name:>18}' for name in candidates)}   ratio")
    for num_workers in map(int, workers.split(",")):
        best = dict.fromkeys(candidates, 0.0)
        for _ in range(repeats):
            for name, make in candidates.items():
                # A new one each time: a bare zip handle that workers inherit by fork reads garbage.
                best[name] = max(best[name], images_per_sec(make(data), batch, num_workers))
        bare, ours = best.values()
        click.echo(f"{num_workers:7}  {bare:18.0f}  {ours:18.0f}   {ours / bare:5.2f}")


if __name__ == "__main__":
    main()
