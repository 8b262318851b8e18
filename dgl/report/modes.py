"""What diversity was lost: clusters of the teacher's images, and which share of the student's falls into each."""
import numpy as np
import scipy.cluster.vq

from torch_utils.network_types import Generator

from . import drawing
from .labels import Choices
from .samples import affordable, generated, seed_inputs, shown, small, tiled

CLUSTERS = 10
IMAGES = 400  # of each network, up to 64 px
LOST = 0.2  # of the teacher's share; a cluster with less is lost
EXAMPLES = 4  # of the teacher's images of a cluster


def modes(
    teacher: Generator, student: Generator, count: int | None = None, choices: Choices | None = None
) -> str:
    """Coverage of the teacher's modes, the k-means clusters of 8x8 pixels, with the shares of both networks.

    Args:
        teacher, student: generators of the same images.
        count: images of each; None is what the resolution affords.
        choices: labels that take turns, in place of the classes.
    """
    count = affordable(teacher.img_resolution, IMAGES, 64) if count is None else count
    z, c = seed_inputs(teacher, count, choices)
    images = generated(teacher, z, c)
    vectors = small(images)
    centres, of_teacher = scipy.cluster.vq.kmeans2(vectors, min(CLUSTERS, count), minit="++", seed=0)
    of_student, _ = scipy.cluster.vq.vq(small(generated(student, z, c)), centres)
    shares = [np.bincount(index, minlength=len(centres)) / count for index in (of_teacher, of_student)]
    order = [i for i in np.argsort(-shares[0]) if shares[0][i] > 0]
    lost = [i for i in order if shares[1][i] < shares[0][i] * LOST]
    covered = float(sum(shares[0][i] for i in order if i not in lost))
    rows, pictures = {}, {}
    for number, i in enumerate(order):
        name = f"cluster {number}{' (lost)' if i in lost else ''}"
        rows[name] = (round(100 * shares[0][i], 1), round(100 * shares[1][i], 1))
        distances = np.linalg.norm(vectors - centres[i], axis=1)
        nearest = shown(images[np.argsort(np.where(of_teacher == i, distances, np.inf))[:EXAMPLES]])
        pictures[name] = drawing.picture(tiled(nearest, 1), f"images of the teacher in {name}", nearest.shape[1])
    return (f"<p>{len(lost)} of {len(order)} clusters of {count} images are lost; the others hold "
            f"{100 * covered:.0f} % of the teacher's images. Percent of the images, with examples of the teacher:</p>"
            + drawing.bars(rows, ("teacher", "student"), pictures))
