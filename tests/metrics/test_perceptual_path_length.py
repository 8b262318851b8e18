import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from metrics.detector import DetectorSpec, load
from metrics.options import MetricOptions
from metrics.perceptual_path_length import (
    EPSILON,
    PathKind,
    compute_ppl,
    mean_without_outliers,
    prepare_images,
    randomise_noise,
    slerp,
)
from metrics.samples import sample_rng
from tests.metrics.toys import ToyGenerator

RTOL = 2e-3  # steps of 1e-4 in float32 keep three to four digits of the difference


@pytest.fixture
def pixel_detector(monkeypatch):
    """A detector whose distance is that of the pixels, so that the path length of a linear generator is known."""
    calls = []

    class PixelDetector:
        name, sha256 = "pixels", "0" * 64

        def __call__(self, images, **mode):
            calls.append((tuple(images.shape), mode))
            return images.double().flatten(1) / 127.5

    monkeypatch.setattr(MetricOptions, "load_detector", lambda self, default: PixelDetector())
    return calls


def pixels_per_w(G: ToyGenerator) -> np.ndarray:
    return G.synthesis.fc.weight.detach().double().numpy()  # [C*H*W, w_dim]


def ends_in_w(G: ToyGenerator, num: int) -> tuple[np.ndarray, np.ndarray]:
    """w of both ends of the first pairs, with the very latents that the metric draws."""
    z0, z1 = np.stack([sample_rng(0, i).randn(2, G.z_dim) for i in range(num)], axis=1)
    weight, bias = (p.detach().double().numpy() for p in (G.mapping.fc.weight, G.mapping.fc.bias))
    return z0 @ weight.T + bias, z1 @ weight.T + bias


def test_linear_generator_in_w(pixel_detector):
    """Between w0 and w1 the image changes by A (w1 - w0) per unit, wherever on the path."""
    G = ToyGenerator()
    w0, w1 = ends_in_w(G, 40)
    expected = mean_without_outliers((((w1 - w0) @ pixels_per_w(G).T) ** 2).sum(axis=1))
    for sampling in ("end", "full"):
        actual = compute_ppl(MetricOptions(G=G, device="cpu"), "ppl", PathKind("w", sampling, False), 40)
        assert actual == {"ppl@pixels": pytest.approx(expected, rel=RTOL)}


def test_linear_generator_in_z(pixel_detector):
    """At its start the great circle leaves a in direction of the tangent, at the speed of the angle."""
    G = ToyGenerator()
    z0, z1 = np.stack([sample_rng(0, i).randn(2, G.z_dim) for i in range(30)], axis=1)
    a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z0, z1))
    cosine = (a * b).sum(axis=1, keepdims=True)
    tangent = b - cosine * a
    speed = np.arccos(cosine) * tangent / np.linalg.norm(tangent, axis=1, keepdims=True)
    pixels_per_z = pixels_per_w(G) @ G.mapping.fc.weight.detach().double().numpy()
    expected = mean_without_outliers(((speed @ pixels_per_z.T) ** 2).sum(axis=1))
    actual = compute_ppl(MetricOptions(G=G, device="cpu"), "ppl", PathKind("z", "end", False), 30)
    assert actual["ppl@pixels"] == pytest.approx(expected, rel=RTOL)


def test_detector_sees_the_crop(pixel_detector):
    opts = MetricOptions(G=ToyGenerator(img_resolution=16), device="cpu", batch_gen=4)
    compute_ppl(opts, "ppl", PathKind("w", "end", crop=True), 2)
    assert pixel_detector == [((4, 3, 8, 8), {"resize_images": False, "return_lpips": True})]


def test_few_pairs_at_a_time_or_many(pixel_detector):
    collected = []
    for batch in (2, 4, 32):
        opts = MetricOptions(G=ToyGenerator(), device="cpu", batch_gen=batch)
        collected.append(compute_ppl(opts, "ppl", PathKind("w", "end", crop=False), 9))
    assert collected[0]["ppl@pixels"] == pytest.approx(collected[1]["ppl@pixels"], rel=RTOL)
    assert collected[0]["ppl@pixels"] == pytest.approx(collected[2]["ppl@pixels"], rel=RTOL)


def test_real_detector_and_labels(toy_detector, tmp_path):
    from tests.metrics.toys import write_dataset

    opts = MetricOptions(
        G=ToyGenerator(c_dim=3),
        dataset_kwargs=write_dataset(tmp_path / "images", num_classes=3),
        detectors=[toy_detector],
        device="cpu",
    )
    result = compute_ppl(opts, "ppl2_wend", PathKind("w", "end", crop=False), 6)
    assert list(result) == ["ppl@toy"]
    assert 0 < result["ppl@toy"] < np.inf


def test_generator_without_parts(toy_detector):
    G = ToyGenerator()
    del G.mapping
    opts = MetricOptions(G=G, detectors=[toy_detector], device="cpu")
    with pytest.raises(UserError, match="ppl2_wend: expected a generator with parts mapping and synthesis, found"):
        compute_ppl(opts, "ppl2_wend", PathKind("w", "end", crop=False), 2)


def test_slerp():
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    for t, expected in ((0, [1, 0]), (1 / 3, [3**0.5 / 2, 0.5]), (1, [0, 1])):
        assert slerp(a, b, torch.tensor([[t]]))[0].tolist() == pytest.approx(expected, abs=1e-6)
    torch.manual_seed(0)
    a, b, t = torch.randn(5, 8), torch.randn(5, 8), torch.rand(5, 1)
    assert slerp(a, b, t).norm(dim=1).tolist() == pytest.approx([1] * 5)
    step = (slerp(a, b, t + EPSILON) - slerp(a, b, t)).norm(dim=1)
    angle = torch.nn.functional.cosine_similarity(a, b).acos()
    assert (step / EPSILON).tolist() == pytest.approx(angle.tolist(), rel=1e-2)  # constant speed


def test_crop_and_averaging():
    rows = torch.arange(1024.0).reshape(1, 1, 1024, 1).repeat(1, 3, 1, 1024)
    cropped = prepare_images(rows, crop=True, img_resolution=1024)
    assert cropped.shape == (1, 3, 128, 128)
    assert cropped[0, 0, :2, 0].tolist() == [385.5, 389.5]  # rows 384..387 and 388..391 averaged
    assert prepare_images(rows, crop=False, img_resolution=1024).shape == (1, 3, 256, 256)
    small = rows[:, :, :64, :64]
    assert torch.equal(prepare_images(small, crop=False, img_resolution=64), small)
    columns = prepare_images(small.transpose(2, 3), crop=True, img_resolution=64)
    assert columns[0, 0, 0].tolist() == list(range(16, 48))


def test_noise_is_redrawn():
    G = ToyGenerator()
    weight = G.synthesis.fc.weight.clone()
    randomise_noise(G)
    assert G.synthesis.block.noise_const.std() > 0.5
    assert torch.equal(G.synthesis.fc.weight, weight)


def test_outliers_are_left_out():
    """201 values: the 1st percentile is the 3rd smallest, the 99th the 3rd largest; both stay in."""
    values = np.concatenate([np.arange(199.0), [1e9, -1e9]])
    shuffled = np.random.RandomState(0).permutation(values)
    assert mean_without_outliers(shuffled) == pytest.approx(np.arange(1, 198).mean())
    assert mean_without_outliers(np.array([3.0])) == 3


def test_toy_detector_knows_the_call_form(toy_detector):
    images = torch.rand(2, 3, 24, 24) * 255
    loaded = load(DetectorSpec(toy_detector), torch.device("cpu"))(images, resize_images=False, return_lpips=True)
    assert loaded.shape[0] == 2
    assert (loaded[0] - loaded[1]).square().sum() > 0
