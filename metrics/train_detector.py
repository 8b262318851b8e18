"""Trains the small feature detector on a labelled data set of the MNIST family and writes it with a card.

    python -m metrics.train_detector --data=DIR --dest=metrics/detectors/clothing32.pt

DIR holds {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz. The training images alone are used for training;
the test images give the accuracy on the card.
"""
import hashlib
import json
import time
from pathlib import Path

import click

from dnnlib.cli import Command, FiniteFloatRange
from dnnlib.files import check_writable_dir, write_json_atomic
from dnnlib.util import format_time


@click.command(cls=Command)
@click.option("--data", help="Folder with the idx.gz files.", metavar="DIR", type=Path, required=True)
@click.option("--dest", help="File to write; the card goes beside it.", metavar="FILE", type=Path, required=True)
@click.option("--epochs", help="Passes over the images.", type=click.IntRange(1), default=20, show_default=True)
@click.option("--batch", help="Images per step.", type=click.IntRange(1), default=128, show_default=True)
@click.option("--lr", help="Highest learning rate.", type=FiniteFloatRange(0), default=0.004, show_default=True)
@click.option("--seed", help="Random seed.", type=click.IntRange(0), default=0, show_default=True)
def main(data: Path, dest: Path, epochs: int, batch: int, lr: float, seed: int) -> None:
    """Train the small feature detector and write it with a card (.json)."""
    import torch

    from metrics.detector_training import accuracy, export, load_split, train

    start_time = time.time()
    check_writable_dir(dest.parent, "dest")
    dest.parent.mkdir(parents=True, exist_ok=True)
    images, labels = load_split(data, "train")
    test_images, test_labels = load_split(data, "t10k")
    net = train(images, labels, epochs, batch, lr, seed)
    test_accuracy = accuracy(net, test_images, test_labels)
    card = {
        "file": dest.name,
        "sha256": export(net, dest),
        "bytes": dest.stat().st_size,
        "params": sum(p.numel() for p in net.parameters()),
        "feature_dim": net.classifier.in_features,
        "num_classes": net.classifier.out_features,
        "test_accuracy": test_accuracy,
        "num_train": len(images),
        "num_test": len(test_images),
        "train_images_sha256": hashlib.sha256((data / "train-images-idx3-ubyte.gz").read_bytes()).hexdigest(),
        "command": f"OMP_NUM_THREADS={torch.get_num_threads()} python -m metrics.train_detector --data={data}"
        f" --dest={dest} --epochs={epochs} --batch={batch} --lr={lr:g} --seed={seed}",
        "total_time": format_time(time.time() - start_time),
        "torch": torch.__version__,
    }
    write_json_atomic(dest.with_suffix(".json"), card)
    click.echo(json.dumps(card))


if __name__ == "__main__":
    main()
