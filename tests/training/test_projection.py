"""Projection: schedule, statistics of w, noise regulariser, and finding an image the generator made."""
import math

import numpy as np
import pytest
import torch

from metrics.perceptual import DetectorFeatures, DiscriminatorFeatures, PerceptualError
from training.inference.projection import ProjectionError, Schedule, noise_regulariser, project, w_statistics, whiten_
from training.networks import Discriminator, Generator

NO_LABEL = torch.zeros([1, 0])


def fresh_networks(img_channels: int = 3, c_dim: int = 0) -> tuple[Generator, Discriminator]:
    """G and D as before training: without noise, and with a w of so few dimensions that an image determines it."""
    widths = {"channel_base": 256, "channel_max": 16}
    size = {"c_dim": c_dim, "img_resolution": 16, "img_channels": img_channels}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G = Generator(z_dim=8, w_dim=8, mapping_kwargs={"num_layers": 2}, synthesis_kwargs=widths, **size)
        D = Discriminator(**widths, **size)
    for name, parameter in G.named_parameters():
        if name.endswith("torgb.weight"):
            parameter.data.mul_(0.3)  # few pixels are too bright for a byte
    return G.eval().requires_grad_(False), D.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("t", "rate", "noise"),
    [
        (0.0, 0.0, 0.05),
        (0.025, 0.05, 0.05 * (1 - 0.025 / 0.75) ** 2),
        (0.05, 0.1, 0.05 * (1 - 0.05 / 0.75) ** 2),
        (0.375, 0.1, 0.0125),
        (0.75, 0.1, 0.0),
        (0.875, 0.05, 0.0),  # the cosine's middle
        (0.9375, 0.1 * (0.5 - 0.5 * math.cos(math.pi / 4)), 0.0),
        (1.0, 0.0, 0.0),
    ],
)
def test_schedule(t, rate, noise):
    schedule = Schedule()
    assert schedule.learning_rate(t) == pytest.approx(rate, abs=1e-12)
    assert schedule.noise_factor(t) == pytest.approx(noise, abs=1e-12)


def test_statistics_of_w():
    G, _ = fresh_networks()
    z = np.random.RandomState(123).randn(2500, 8)  # more than one batch, and not a whole number of them
    w = G.mapping(torch.from_numpy(z), None)[:, 0].double().numpy()
    mean, std = w_statistics(G, NO_LABEL, 2500)
    assert mean.shape == (1, 1, 8)
    np.testing.assert_allclose(mean[0, 0].numpy(), w.mean(axis=0), atol=1e-6)
    assert std == pytest.approx(np.sqrt(((w - w.mean(axis=0)) ** 2).sum() / 2500), rel=1e-5)


def test_statistics_of_w_are_those_of_the_class():
    G, _ = fresh_networks(c_dim=2)
    means = [w_statistics(G, label[None], 50)[0] for label in torch.eye(2)]
    expected = G.mapping(torch.from_numpy(np.random.RandomState(123).randn(50, 8)), torch.eye(2)[1:].expand(50, -1))
    assert not torch.equal(*means)
    torch.testing.assert_close(means[1][0, 0], expected[:, 0].mean(dim=0))


def test_noise_regulariser_by_hand():
    # Columns 1, 0, 1, 0: neighbours in x have product 0, in y 1 or 0 with mean 1/2. One octave below 8 pixels.
    stripes = torch.tensor([1.0, 0.0, 1.0, 0.0]).expand(4, 4)
    assert noise_regulariser([stripes]).item() == pytest.approx(0.25)
    # All ones: 1 in both directions, at 32, 16 and 8 pixels; the images add up.
    assert noise_regulariser([torch.ones(32, 32), torch.ones(8, 8)]).item() == pytest.approx(8)
    assert noise_regulariser([]).item() == 0


def test_noise_regulariser_wraps_around():
    corner = torch.zeros(4, 4)
    corner[0, 0] = corner[0, 3] = 4  # neighbours only across the edge
    assert noise_regulariser([corner]).item() == pytest.approx(1)


def test_whitened_noise():
    noise = torch.randn([8, 8], generator=torch.Generator().manual_seed(0)) * 3 + 1
    whiten_(noise)
    assert abs(noise.mean().item()) < 1e-6
    assert noise.square().mean().item() == pytest.approx(1, abs=1e-6)


def self_made(G, c, seed=0):
    """A latent w [w_dim] and its image in bytes."""
    z = torch.randn([1, G.z_dim], generator=torch.Generator().manual_seed(seed))
    ws = G.mapping(z, c)
    image = G.synthesis(ws, noise_mode="const")
    return ws[0, 0], (image[0] * 127.5 + 127.5).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(
    ("img_channels", "c_dim", "seed"),
    [
        pytest.param(3, 0, 0, id="rgb"),
        pytest.param(1, 0, 0, id="grey"),
        pytest.param(2, 3, 1, id="two channels, conditional"),
    ],
)
def test_image_of_the_generator_is_found_again(img_channels, c_dim, seed):
    G, D = fresh_networks(img_channels=img_channels, c_dim=c_dim)
    c = torch.eye(c_dim)[:1] if c_dim else NO_LABEL
    w, target = self_made(G, c, seed)
    features = DiscriminatorFeatures(D)
    torch.manual_seed(0)
    result = project(G, target, features=features, c=c, num_steps=100, w_avg_samples=200)
    assert result.shape == (100, G.num_ws, 8)
    assert result.dtype == torch.float32
    assert torch.equal(result[-1], result[-1, :1].expand(G.num_ws, -1))

    def distance(ws):
        image = (G.synthesis(ws[None], noise_mode="const") + 1) * 127.5
        return float((features(image) - features(target[None].float())).square().sum())

    start = w_statistics(G, c, 200)[0][0].expand(G.num_ws, -1)
    assert distance(result[-1]) < 0.02 * distance(start)
    assert (result[-1, 0] - w).norm() < 0.25 * (start[0] - w).norm()


def test_first_step_stays_and_the_same_seed_repeats():
    G, D = fresh_networks()
    _, target = self_made(G, NO_LABEL)
    runs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        runs.append(project(G, target, features=DiscriminatorFeatures(D), num_steps=8, w_avg_samples=50))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    mean, _ = w_statistics(G, NO_LABEL, 50)
    torch.testing.assert_close(runs[0][0, 0], mean[0, 0])  # the learning rate of the first step is 0


def test_generator_is_left_alone():
    G, D = fresh_networks()
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    G.train()
    project(G, self_made(G, NO_LABEL)[1], features=DiscriminatorFeatures(D), num_steps=2, w_avg_samples=10)
    assert G.training
    for name, tensor in G.state_dict().items():
        assert torch.equal(tensor, before[name]) or name.endswith("w_avg"), name
        assert not tensor.requires_grad


def test_errors_of_project():
    G, D = fresh_networks()
    features = DiscriminatorFeatures(D)
    with pytest.raises(ProjectionError, match=r"expected an image of shape \[3, 16, 16\], found \[3, 8, 8\]"):
        project(G, torch.zeros(3, 8, 8), features=features)
    with pytest.raises(ProjectionError, match="only style-based generators have a w to optimise, this is a Linear"):
        project(torch.nn.Linear(1, 1), torch.zeros(3, 8, 8), features=features)


def test_discriminator_features_are_a_bounded_distance():
    _, D = fresh_networks(img_channels=1)
    features = DiscriminatorFeatures(D)
    images = torch.rand([2, 1, 16, 16], generator=torch.Generator().manual_seed(0)) * 255
    vectors = features(images)
    assert vectors.square().sum(dim=1).tolist() == pytest.approx([1, 1], rel=1e-5)  # unit vectors on average
    assert 0 < (vectors[0] - vectors[1]).square().sum() < 4
    torch.testing.assert_close(features(images[:1]), vectors[:1])  # no image has a part in another's features


def test_discriminator_features_by_hand():
    _, D = fresh_networks()
    image = torch.rand([1, 3, 16, 16], generator=torch.Generator().manual_seed(0)) * 255
    scaled = image / 127.5 - 1
    x16, img = D.b16(None, scaled)
    x8, _ = D.b8(x16, img)
    parts = [(x / x.norm(dim=1, keepdim=True)).flatten() / x[0, 0].numel() ** 0.5 for x in (x16, x8)]
    expected = torch.cat(parts) / 2**0.5
    torch.testing.assert_close(DiscriminatorFeatures(D)(image)[0], expected)


def test_discriminator_without_blocks():
    with pytest.raises(PerceptualError, match="the pickle's own discriminator, a Linear, has no blocks"):
        DiscriminatorFeatures(torch.nn.Linear(1, 1))


class Recorder:
    """Stands for a loaded detector."""

    name = "recorder"

    def __call__(self, images, **mode):
        self.images, self.mode = images, mode
        return images.flatten(1)


@pytest.mark.parametrize("side", [64, 512])
def test_detector_sees_at_most_256_pixels(side):
    recorder = Recorder()
    image = torch.rand([1, 1, side, side], generator=torch.Generator().manual_seed(0)) * 255
    DetectorFeatures(recorder)(image)
    shown = min(side, 256)
    assert recorder.mode == {"resize_images": False, "return_lpips": True}
    torch.testing.assert_close(
        recorder.images, image.reshape(1, 1, shown, side // shown, shown, side // shown).mean(dim=(3, 5))
    )


def test_detector_needs_grey_or_rgb():
    with pytest.raises(PerceptualError, match="takes grey or RGB images, the network makes ones of 4 channels"):
        DetectorFeatures(Recorder())(torch.zeros(1, 4, 8, 8))
