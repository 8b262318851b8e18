"""The shipped detector: its file, and whether its distances mean anything."""
import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

import metrics
from metrics.detector import DetectorSpec, load
from metrics.feature_stats import FeatureStats
from metrics.frechet_inception_distance import frechet_distance
from metrics.small_detector import SmallDetector
from tests.helpers import golden

FILE = Path(metrics.__file__).parent / "detectors" / "clothing32.pt"
MAX_BYTES = 400_000


@pytest.fixture(scope="module")
def detector():
    return load(DetectorSpec(str(FILE)), torch.device("cpu"))


@pytest.fixture(scope="module")
def halves():
    """Two sets of 160 real test images [N, 32, 32], and the labels of the second."""
    data = golden("clothing320")
    images = np.pad(data["images"], [(0, 0), (2, 2), (2, 2)])
    return images[:160], images[160:], data["labels"][160:]


@pytest.fixture(scope="module")
def distance(detector, halves):
    """Maps images [N, 32, 32] to their distance from the first half."""

    def moments(images):
        stats = FeatureStats(capture_mean_cov=True)
        batch = torch.from_numpy(np.ascontiguousarray(images)).unsqueeze(1)
        with torch.no_grad():
            stats.append_torch(detector(batch, return_features=True))
        return stats.get_mean_cov()

    reference = moments(halves[0])
    return lambda images: frechet_distance(*reference, *moments(images))


def test_card():
    card = json.loads(FILE.with_suffix(".json").read_text())
    assert card["sha256"] == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert card["bytes"] == FILE.stat().st_size <= MAX_BYTES
    assert card["test_accuracy"] >= 0.92


def test_file_tells_nothing_about_the_machine():
    with zipfile.ZipFile(FILE) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]


def test_knows_clothing(detector, halves):
    _, images, labels = halves
    probs = detector(torch.from_numpy(images).unsqueeze(1))
    assert probs.sum(dim=1).tolist() == pytest.approx([1] * len(images))
    assert (probs.argmax(dim=1).numpy() == labels).mean() > 0.85


def test_bias_can_be_left_out(detector, halves):
    images = torch.from_numpy(halves[0][:4]).unsqueeze(1)
    with_bias, without = detector(images), detector(images, no_output_bias=True)
    bias = detector.module.classifier.bias
    assert torch.allclose((without.log() + bias).softmax(dim=1), with_bias, atol=1e-5)


def test_other_resolutions_are_resized(detector, halves):
    images = torch.from_numpy(halves[0][:20]).unsqueeze(1)
    large = images.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    features = [detector(x, return_features=True) for x in (images, large)]
    assert (features[0] - features[1]).norm() < 0.2 * features[0].norm()


def test_perceptual_distance(detector, halves):
    """Zero to itself; a shift by a pixel is nearer than another garment."""
    images = torch.from_numpy(halves[0][:30]).unsqueeze(1).float()
    vectors = detector(images, resize_images=False, return_lpips=True)
    shifted = detector(images.roll(1, dims=3), resize_images=False, return_lpips=True)
    near = (vectors - shifted).square().sum(dim=1)
    far = (vectors - vectors.roll(1, dims=0)).square().sum(dim=1)
    assert near.median() < far.median()


def test_gradient_reaches_the_image(detector):
    image = (torch.rand(1, 3, 32, 32) * 255).requires_grad_(True)
    detector(image, resize_images=False, return_lpips=True).square().sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (64, 96), (100, 33)])
def test_resizing_is_antialiased_linear_interpolation(size):
    net = SmallDetector()
    images = torch.rand(2, 1, *size)
    rows, cols = (net.resize_matrix(side, images.device) for side in size)
    expected = torch.nn.functional.interpolate(images, size=[32, 32], mode="bilinear", antialias=True)
    assert torch.allclose(rows @ images @ cols.t(), expected, atol=1e-5)


def noisy(images, sigma):
    rng = np.random.RandomState(0)
    return (images + rng.randn(*images.shape) * sigma).clip(0, 255).astype(np.uint8)


def test_worse_images_are_farther(distance, halves):
    _, images, _ = halves
    good = distance(images)
    for worse in (
        [noisy(images, sigma) for sigma in (4, 12, 36)],
        [gaussian_filter(images.astype(float), (0, s, s)).astype(np.uint8) for s in (0.5, 1, 2)],
    ):
        steps = [good] + [distance(x) for x in worse]
        assert steps == sorted(steps), steps
        assert steps[-1] > 5 * good


def test_less_variety_is_farther(distance, halves):
    _, images, labels = halves
    good = distance(images)
    for fewer in (
        [images[labels < num] for num in (9, 7, 5, 3)],
        [np.repeat(images[:num], len(images) // num, axis=0) for num in (80, 40, 16, 4)],
    ):
        steps = [good] + [distance(x) for x in fewer]
        assert steps == sorted(steps), steps
        assert steps[-1] > 5 * good
