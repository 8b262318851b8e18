"""The metric `agreement`, against NumPy arithmetic, and what it says to networks that cannot be compared."""
import math
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch

from dnnlib.errors import UserError
from metrics import image_similarity as similarity
from metrics.agreement import Reference
from metrics.metric_main import calc_metric
from metrics.perceptual import block_distance, block_features
from metrics.samples import sample_rng
from tests import tiny
from tests.metrics.toys import ToyGenerator


def calc(G: Any, reference: Reference | None, **options: Any) -> Any:
    return calc_metric("agreement", **{"G": G, "reference": reference, "num_gen": 10, "device": "cpu", **options})


def reference_ssim(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """SSIM of two grey images with range 2, and its part without luminance, by SciPy's filters."""
    def smooth(x: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(x, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    c1, c2 = 0.02**2, 0.06**2
    mean_a, mean_b = smooth(a), smooth(b)
    var_a, var_b = smooth(a * a) - mean_a**2, smooth(b * b) - mean_b**2
    structure = (2 * (smooth(a * b) - mean_a * mean_b) + c2) / (var_a + var_b + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((structure * luminance).mean()), float(structure.mean())


def test_ssim_is_that_of_the_formula() -> None:
    a, b = (tiny.images(3, 24, 2, seed).double() for seed in (1, 2))
    b = 0.7 * a + 0.3 * b
    actual = similarity.ssim(a, b)
    for n in range(3):
        expected = np.mean([reference_ssim(a[n, c].numpy(), b[n, c].numpy())[0] for c in (0, 1)])
        assert float(actual[n]) == pytest.approx(expected, rel=1e-6)
    assert torch.allclose(similarity.ssim(a, a), torch.ones(3).double())


def test_ms_ssim_is_that_of_the_formula() -> None:
    a, b = (tiny.images(1, 176, 1, seed).double() for seed in (1, 2))
    b = 0.8 * a + 0.2 * b
    x, y = a[0, 0].numpy(), b[0, 0].numpy()
    expected = 1.0
    for number, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        whole, structure = reference_ssim(x, y)
        expected *= (whole if number == 4 else structure) ** weight
        if number < 4:
            x, y = ((image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4 for image in (x, y))
    assert float(similarity.ms_ssim(a, b)) == pytest.approx(expected, rel=1e-6)
    assert float(similarity.ms_ssim(a, a)) == pytest.approx(1)


def test_small_images_have_no_window() -> None:
    with pytest.raises(ValueError, match=r"at least 11 px and one shape, found \[1, 1, 8, 8\] and \[1, 1, 8, 8\]"):
        similarity.ssim(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="at least 176 px"):
        similarity.ms_ssim(torch.zeros(1, 1, 175, 176), torch.zeros(1, 1, 175, 176))
    G = tiny.tiny_generator(resolution=8)
    assert list(calc(G, Reference("t.pkl", "0", G)).results) == ["agreement_psnr"]


def test_psnr_of_equal_images_is_finite() -> None:
    assert similarity.psnr(0) == 100
    assert similarity.psnr(0.04) == pytest.approx(20)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_images_of_the_same_latents_are_compared(c_dim: int) -> None:
    G, other, D = tiny.tiny_generator(c_dim=c_dim), tiny.tiny_generator(c_dim=c_dim, seed=7), tiny.tiny_discriminator()
    result = calc(G, Reference("t.pkl", "abc", other, D), seed=3, batch_gen=4)
    z, c = np.zeros([10, 16], dtype=np.float32), np.zeros([10, c_dim], dtype=np.float32)
    for i in range(10):
        random = sample_rng(3, i)
        z[i] = random.randn(16)
        if c_dim:
            c[i, random.randint(c_dim)] = 1
    a, b = (net(torch.from_numpy(z), torch.from_numpy(c), noise_mode="const").clamp(-1, 1) for net in (G, other))
    actual = result.results
    assert list(actual) == ["agreement_psnr", "agreement_ssim", "agreement_distance@D"]
    assert actual["agreement_psnr"] == pytest.approx(-10 * math.log10(float((a - b).square().mean()) / 4), rel=1e-5)
    assert actual["agreement_ssim"] == pytest.approx(float(similarity.ssim(a, b).mean()), rel=1e-4)
    distance = block_distance(block_features(D, a), block_features(D, b)).mean()
    assert actual["agreement_distance@D"] == pytest.approx(float(distance), rel=1e-4)
    assert result.protocol.teacher == {"name": "t.pkl", "sha256": "abc"}
    assert result.protocol.similarity == "ssim"
    assert result.protocol.num_gen == 10
    assert not result.comparable
    same = calc(G, Reference("t.pkl", "abc", G, D)).results
    assert list(same.values()) == pytest.approx([100, 1, 0], abs=1e-5)


def test_a_detector_that_knows_lpips_replaces_the_discriminator(toy_detector: str) -> None:
    G, other = ToyGenerator(), ToyGenerator(seed=1)
    result = calc(G, Reference("t.pkl", "0", other, tiny.tiny_discriminator()), detectors=[toy_detector])
    assert list(result.results)[2] == "agreement_lpips@toy"
    assert result.results["agreement_lpips@toy"] > 0
    assert result.protocol.detector.keys() == {"name", "sha256"}


def test_what_cannot_be_compared() -> None:
    with pytest.raises(UserError, match=r"^teacher: agreement compares with another network; pass its pickle$"):
        calc(ToyGenerator(), None)
    other = Reference("t.pkl", "0", tiny.tiny_generator())
    with pytest.raises(UserError, match=r"^teacher: expected a network of the same images and latents, but "
                                        r"img_resolution of t\.pkl is 16, that of the network is 8; pass the network "):
        calc(tiny.tiny_generator(resolution=8), other)
