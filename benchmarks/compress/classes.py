"""Scores by class: how often a classifier recognises the requested class, and distances within classes.

    python -m benchmarks.compress.classes --network=G.pkl --data=labelled.zip --detector=clothing32.pt

One JSON line. The classifier is the detector itself, whose classes must be numbered as the data set's.
"""
import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

import dnnlib
from dnnlib.cli import Command
from dnnlib.errors import UserError
from metrics.detector import DetectorSpec, load
from metrics.frechet_inception_distance import frechet_distance
from metrics.samples import sample_rng
from training.checkpoints.pickles import open_networks

BATCH = 100


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [F] and covariance [F, F] of features [N, F], divided by N as the other distances here."""
    return features.mean(axis=0), np.cov(features, rowvar=False, bias=True)


def class_scores(
    real: np.ndarray, real_labels: np.ndarray, gen: np.ndarray, gen_labels: np.ndarray, predicted: np.ndarray
) -> dict[str, list[float]]:
    """Per class: the share of its images that are classified as it, and the Fréchet distance to its real images.

    Args:
        real, gen: features [N, F] and [M, F].
        real_labels, gen_labels: classes of these.
        predicted: classes that the classifier found in the generated images [M].
    """
    scores: dict[str, list[float]] = {"accuracy": [], "intra_fd": []}
    for label in range(int(real_labels.max()) + 1):
        of_class = gen_labels == label
        scores["accuracy"].append(float((predicted[of_class] == label).mean()))
        scores["intra_fd"].append(frechet_distance(*moments(gen[of_class]), *moments(real[real_labels == label])))
    return scores


@torch.no_grad()
def evaluate(G: Any, dataset: Any, detector: Any, num_gen: int, seed: int) -> dict[str, Any]:
    """The scores of `class_scores`, their means, and the classifier's accuracy on the real images."""
    if G.c_dim < 2 or dataset.label_dim != G.c_dim:
        raise UserError(f"--data: expected labels of {G.c_dim} classes like the network's, found {dataset.label_dim}")
    real, real_labels, real_seen = [], [], []
    for start in range(0, len(dataset), BATCH):
        items = [dataset[i] for i in range(start, min(start + BATCH, len(dataset)))]
        images = torch.from_numpy(np.stack([image for image, _ in items]))
        real.append(detector(images, return_features=True).numpy())
        real_seen.append(detector(images).argmax(dim=1).numpy())
        real_labels.append(np.stack([label for _, label in items]).argmax(axis=1))
    gen, predicted = [], []
    gen_labels = np.arange(num_gen) % G.c_dim
    for start in range(0, num_gen, BATCH):
        labels = torch.from_numpy(gen_labels[start : start + BATCH])
        rows = [sample_rng(seed, start + i).randn(G.z_dim) for i in range(len(labels))]
        one_hot = torch.nn.functional.one_hot(labels, G.c_dim).float()
        images = G(torch.from_numpy(np.stack(rows)).float(), one_hot)
        pixels = (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
        gen.append(detector(pixels, return_features=True).numpy())
        predicted.append(detector(pixels).argmax(dim=1).numpy())
    true = np.concatenate(real_labels)
    per_class = class_scores(np.concatenate(real), true, np.concatenate(gen), gen_labels, np.concatenate(predicted))
    means = {name: float(np.mean(values)) for name, values in per_class.items()}
    return {**means, "per_class": per_class, "real_accuracy": float((np.concatenate(real_seen) == true).mean()),
            "num_gen": num_gen, "num_real": len(dataset), "seed": seed}


@click.command(cls=Command)
@click.option("--network", help="Network pickle with a conditional generator.", required=True, metavar="PKL")
@click.option("--data", help="Labelled data set to compare with.", required=True, metavar="PATH")
@click.option("--detector", help="Detector that is a classifier too.", required=True, metavar="PATH")
@click.option("--num-gen", help="Images, equally many of each class.", type=click.IntRange(min=2), default=10000,
              show_default=True)
@click.option("--seed", help="Seed of the latents.", type=int, default=0, show_default=True)
def main(network: str, data: str, detector: str, num_gen: int, seed: int) -> None:
    """Print accuracy and Fréchet distance of every class as a JSON line."""
    if not Path(data).exists():
        raise UserError(f"--data: {data}: no such file")
    dataset = dnnlib.util.construct_class_by_name(
        class_name="training.dataset.ImageFolderDataset", path=data, use_labels=True
    )
    classifier = load(DetectorSpec.parse(detector), torch.device("cpu"))
    scores = evaluate(open_networks(network)["G_ema"], dataset, classifier, num_gen, seed)
    click.echo(json.dumps({**scores, "detector": classifier.name}))


if __name__ == "__main__":
    main()
