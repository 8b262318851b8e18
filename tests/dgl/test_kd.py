"""Distillation terms: each by its own arithmetic."""
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from dgl import kd, teacher
from dgl.comparison import Comparison, ComparisonOptions, draw
from dgl.kd import feature, latent, lpips, moments, rgb, torgb
from dgl.loss import DGLLoss
from dnnlib.errors import UserError
from metrics import perceptual, torchscript
from tests import tiny, tiny_biggan
from torch_utils import training_stats
from training.loss import GenBatch

TERMS = {"rgb": rgb.RGBTerm, "feature": feature.FeatureTerm, "torgb": torgb.ToRGBTerm,
         "latent": latent.LatentDirectionTerm, "moments": moments.MomentsTerm, "lpips": lpips.LPIPSTerm}
WITHOUT_FILES = [name for name in TERMS if name != "lpips"]
DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return teacher.load(tiny.write_teacher(tmp_path_factory.mktemp("kd") / "teacher.pkl"))


def batch_of(G: Any, noise_mode: str = "const", cur_nimg: int = 0) -> GenBatch:
    z, c = tiny.latents()
    ws = G.mapping(z, c)
    img = G.synthesis(ws, noise_mode=noise_mode)
    return GenBatch(z, c, ws, img, img, cur_nimg)


def make(name: str, trained: Any, G: Any, weight: float = 1.0, **options: Any) -> Any:
    return TERMS[name](weight, Comparison(trained, G, ComparisonOptions(**options)))


def test_the_terms_are_those_of_the_command_line() -> None:
    assert {name: info.load() for name, info in kd.TERMS.items()} == TERMS
    assert kd.names() == tuple(TERMS)
    assert kd.help_text().startswith("rgb (L1 to the teacher's image), ")
    assert all(info.families for info in kd.TERMS.values())


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_a_student_equal_to_its_teacher_has_nothing_to_learn(name: str, trained: Any) -> None:
    term = make(name, trained, trained.G_ema)
    torch.testing.assert_close(term(batch_of(trained.G_ema)), torch.zeros(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_a_different_student_has(name: str, trained: Any) -> None:
    G = tiny.tiny_generator(seed=3)
    once, twice = (make(name, trained, G, weight)(batch_of(G)) for weight in (1, 2))
    assert once.shape == (4,)
    assert (once > 1e-4).all()
    torch.testing.assert_close(twice, 2 * once)


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_without_weight_there_is_no_term(name: str, trained: Any) -> None:
    G = tiny.tiny_generator(seed=3)
    assert make(name, trained, G, weight=0)(batch_of(G)) is None


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_terms_draw_no_random_numbers_and_train_only_the_student(name: str, trained: Any) -> None:
    G = tiny.tiny_generator(seed=3).requires_grad_(True)
    term = make(name, trained, G)
    before = torch.random.get_rng_state()
    term(batch_of(G)).sum().backward()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert sum(p.grad is not None and bool(p.grad.any()) for p in G.parameters()) > 20
    frozen = [*trained.G_ema.parameters(), *trained.D.parameters()]
    assert not any(p.requires_grad or p.grad is not None for p in frozen)


def test_rgb_is_the_mean_absolute_difference(trained: Any) -> None:
    batch = batch_of(trained.G_ema)
    shift = torch.tensor([0.0, 0.5, -1.0, 2.0])[:, None, None, None]
    shifted = GenBatch(batch.z, batch.c, batch.ws, batch.img + shift, batch.img_aug, 0)
    torch.testing.assert_close(make("rgb", trained, trained.G_ema, 3)(shifted), torch.tensor([0, 1.5, 3, 6]))


def test_features_have_unit_length_and_their_distance_is_bounded(trained: Any) -> None:
    a, b = (perceptual.block_features(trained.D, tiny.images(seed=seed)) for seed in (0, 1))
    assert [tuple(x.shape) for x in a] == [(4, 16, 8, 8), (4, 16, 4, 4)]
    for x in a:
        torch.testing.assert_close(x.square().sum(dim=1), torch.ones(4, *x.shape[2:]), atol=1e-4, rtol=0)
    actual = perceptual.block_distance(a, b)
    expected = torch.stack([(2 - 2 * (x * y).sum(dim=1)).mean(dim=[1, 2]) for x, y in zip(a, b)]).mean(dim=0)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert (actual <= 4).all()


def test_the_latent_term_compares_cosines(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With changes e1, e1 of the teacher's images and e1, e2 of the student's, R_T is all ones and R the identity."""
    term = make("latent", trained, trained.G_ema, weight=2)
    changes = iter([torch.tensor([[1.0, 0], [1, 0]]), torch.tensor([[1.0, 0], [0, 1]])])

    def fake(D: Any, img: torch.Tensor) -> list[torch.Tensor]:
        return [next(changes) if img.item() else torch.zeros(2, 2)]

    monkeypatch.setattr(latent, "block_features", fake)
    synthesis = [torch.tensor(0.0), torch.tensor(1.0)] * 2
    monkeypatch.setattr(term, "teacher", _Fixed(synthesis[:2]))
    monkeypatch.setattr(term, "G", _Fixed(synthesis[2:]))
    z = torch.zeros(2, 16)
    result = term(GenBatch(z, z[:, :0], torch.zeros(2, 6, 16), z, z, 0))
    torch.testing.assert_close(result, torch.tensor([1.0, 1.0]))  # 2 * mean(|0|, |0 - 1|)


class _Fixed:
    """A generator that gives prepared images, one after the other."""

    def __init__(self, images: list[torch.Tensor]) -> None:
        self.images = iter(images)

    def synthesis(self, ws: torch.Tensor, noise_mode: str) -> torch.Tensor:
        assert noise_mode == "const"
        return next(self.images)


def test_the_latent_term_takes_another_direction_in_every_iteration(trained: Any) -> None:
    G = tiny.tiny_generator(seed=3)
    term = make("latent", trained, G)
    first, again, other = (term(batch_of(G, cur_nimg=n)) for n in (0, 0, 4))
    assert torch.equal(first, again), "passes of one batch, and ranks, agree"
    assert not torch.equal(first, other)


@pytest.mark.parametrize("batch_size", [32, 48, 64])
def test_every_direction_comes_up(batch_size: int, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    G = tiny.tiny_generator(seed=3)
    term = make("latent", trained, G)
    count = len(term.directions)
    noted: set[int] = set()

    class Spy:
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> Any:
            noted.add(index)
            raise StopIteration

    term.directions = Spy()
    example = batch_of(G)
    for step in range(20 * count):
        with pytest.raises(StopIteration):
            term(dataclasses.replace(example, cur_nimg=step * batch_size))
    assert noted == set(range(count))


def test_the_feature_term_is_the_mean_distance_of_unit_features(trained: Any) -> None:
    G = tiny.tiny_generator(seed=3)
    example = batch_of(G)
    actual = make("feature", trained, G, weight=0.5)(example)
    with torch.no_grad():
        target = trained.G_ema.synthesis(example.ws, noise_mode="const")
        expected = torch.zeros(4)
        maps = [perceptual.block_features(trained.D, img) for img in (example.img, target)]
        for ours, other in zip(*maps):
            unit = [x / x.square().sum(dim=1, keepdim=True).sqrt() for x in (ours, other)]
            expected += (unit[0] - unit[1]).square().sum(dim=1).mean(dim=[1, 2]) / len(maps[0])
    torch.testing.assert_close(actual, expected * 0.5, rtol=1e-4, atol=1e-6)


def test_terms_wait_for_the_second_stage(tmp_path: Path) -> None:
    url = tiny.write_teacher(tmp_path / "teacher.pkl")
    G, D = tiny.tiny_generator(seed=7).train(), tiny.tiny_discriminator(seed=8).train()
    loss = DGLLoss(DEVICE, G, D, teachers=[{"url": url}], kd={"rgb": 1.0}, stage1_kimg=1)
    term = loss.base.g_terms[-1]
    assert term.name == "kd_rgb"
    assert term(batch_of(G, cur_nimg=999)) is None
    assert term(batch_of(G, cur_nimg=1000)) is not None


def test_an_updated_teacher_is_not_the_measure(tmp_path: Path) -> None:
    url = tiny.write_teacher(tmp_path / "teacher.pkl")
    G, D = tiny.tiny_generator(seed=7).train(), tiny.tiny_discriminator(seed=8).train()
    loss = DGLLoss(DEVICE, G, D, teachers=[{"url": url}], kd={"feature": 1.0, "latent": 1.0}, teacher_update=True,
                   teacher_opt_kwargs={"class_name": "torch.optim.Adam", "lr": 0.01, "betas": [0.0, 0.99]})
    assert loss.teachers.discriminators[0].training
    for term in loss.base.g_terms[1:]:
        assert term.term.D is not loss.teachers.discriminators[0]
        assert not term.term.D.training


def test_terms_join_the_loss_by_name(tmp_path: Path) -> None:
    url = tiny.write_teacher(tmp_path / "teacher.pkl")
    G, D = tiny.tiny_generator(seed=7).train(), tiny.tiny_discriminator(seed=8).train()
    loss = DGLLoss(DEVICE, G, D, teachers=[{"url": url}], kd={"rgb": 1.0, "latent": 0.5}, style_mixing_prob=0)
    assert [term.name for term in loss.base.g_terms] == ["dgl", "kd_rgb", "kd_latent"]
    collector = training_stats.Collector()
    tiny.gradients(loss, "Gmain", G)
    collector.update()
    assert collector.mean("Loss/G/kd_rgb") > 0
    assert collector.mean("Loss/G/kd_latent") > 0


# Details of the terms.


def test_blocks_are_weighted(trained: Any) -> None:
    G = tiny.tiny_generator(seed=3)
    example = batch_of(G)
    first, second = (make("feature", trained, G, blocks=blocks)(example) for blocks in ((1.0, 0.0), (0.0, 1.0)))
    torch.testing.assert_close(make("feature", trained, G, blocks=(2.0, 3.0))(example), 2 * first + 3 * second)
    torch.testing.assert_close(make("feature", trained, G)(example), (first + second) / 2)
    with pytest.raises(ValueError, match="expected one weight for each of the 2 blocks of the teacher's discriminator, "
                                         "found 3"):
        make("feature", trained, G, blocks=(1.0, 1.0, 1.0))(example)


def write_mask(path: Path, size: tuple[int, int] = (16, 16)) -> str:
    """White in the upper half, black in the lower one."""
    pixels = np.zeros(size[::-1], dtype=np.uint8)
    pixels[: size[1] // 2] = 255
    PIL.Image.fromarray(pixels).save(path)
    return str(path)


def test_a_mask_weighs_the_pixels(trained: Any, tmp_path: Path) -> None:
    batch = batch_of(trained.G_ema)
    shift = torch.zeros([4, 3, 16, 16])
    shift[:, :, :8], shift[:, :, 8:] = 0.5, 100
    shifted = dataclasses.replace(batch, img=batch.img + shift)
    mask = write_mask(tmp_path / "mask.png")
    torch.testing.assert_close(make("rgb", trained, trained.G_ema, mask=mask)(shifted), torch.full([4], 0.5))
    below = dataclasses.replace(batch, img=batch.img + shift * (shift > 1))
    torch.testing.assert_close(make("rgb", trained, trained.G_ema, mask=mask)(below), torch.zeros(4))
    for name in WITHOUT_FILES:
        G = tiny.tiny_generator(seed=3)
        example = batch_of(G)
        assert not torch.allclose(make(name, trained, G, mask=mask)(example), make(name, trained, G)(example)), name


def test_masks_that_do_not_fit_are_named(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^kd_mask: the mask .*mask.png is 8x16, the teacher's images are 16x16"):
        make("rgb", trained, trained.G_ema, mask=write_mask(tmp_path / "mask.png", (8, 16)))
    PIL.Image.new("L", (16, 16)).save(tmp_path / "black.png")
    with pytest.raises(UserError, match="has no bright pixel"):
        make("rgb", trained, trained.G_ema, mask=str(tmp_path / "black.png"))
    (tmp_path / "no.png").write_text("no")
    with pytest.raises(UserError, match="cannot be read as an image"):
        make("rgb", trained, trained.G_ema, mask=str(tmp_path / "no.png"))
    (tmp_path / "page.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n")
    with pytest.raises(UserError, match=r"cannot be read as an image \(is a PostScript file, which is not"):
        make("rgb", trained, trained.G_ema, mask=str(tmp_path / "page.png"))


def test_the_moments_term_is_the_mmd_of_pooled_features(trained: Any) -> None:
    """By the kernel itself; the order of the images does not matter, so no latent needs to keep its image."""
    G = tiny.tiny_generator(seed=3)
    batch = batch_of(G)
    expected = torch.zeros([])
    for a, b in zip(*(perceptual.block_features(trained.D, img) for img in
                      (batch.img, draw(trained.G_ema, batch.z, batch.c, batch.ws)))):
        x, y = a.mean(dim=[2, 3]).double(), b.mean(dim=[2, 3]).double()
        kernels = [(u @ v.t() + 1).square().mean() for u, v in ((x, x), (x, y), (y, y))]
        expected = expected + (kernels[0] - 2 * kernels[1] + kernels[2]) / 2
    term = make("moments", trained, G, weight=3)
    torch.testing.assert_close(term(batch), (3 * expected).expand(4), check_dtype=False, rtol=1e-4, atol=1e-7)
    same = batch_of(trained.G_ema)
    shuffled = dataclasses.replace(same, img=same.img.flip(0))
    torch.testing.assert_close(make("moments", trained, trained.G_ema)(shuffled), torch.zeros(4), atol=1e-6, rtol=0)
    a, b = torch.rand([3, 2], dtype=torch.float64, requires_grad=True), torch.rand([4, 2], dtype=torch.float64)
    assert torch.autograd.gradcheck(moments.squared_mmd, (a, b))


def test_images_by_resolution_end_with_the_image(trained: Any) -> None:
    batch = batch_of(trained.G_ema)
    images = torgb.images_by_resolution(trained.G_ema.synthesis, batch.ws)
    assert [tuple(img.shape) for img in images] == [(4, 3, 4, 4), (4, 3, 8, 8), (4, 3, 16, 16)]
    assert torch.equal(images[-1], batch.img)
    assert not any(module._forward_hooks for module in trained.G_ema.modules()), "snapshots must not hold hooks"


def test_the_torgb_term_is_the_mean_over_resolutions(trained: Any) -> None:
    G = tiny.tiny_generator(seed=3)
    example = batch_of(G)
    pairs = zip(*(torgb.images_by_resolution(net.synthesis, example.ws) for net in (G, trained.G_ema)))
    expected = sum((a - b).abs().mean(dim=[1, 2, 3]) for a, b in pairs) / 3
    torch.testing.assert_close(make("torgb", trained, G, weight=2)(example), 2 * expected)


def test_a_residual_generator_has_one_image_only(trained: Any) -> None:
    with pytest.raises(UserError, match=r"^kd: torgb needs a generator with an image at every resolution"):
        make("torgb", trained, tiny.tiny_generator("resnet"))


class ToyLPIPS(torch.nn.Module):
    """The pixels of an image in units of 255."""

    def forward(self, img: torch.Tensor, resize_images: bool = True, return_lpips: bool = False) -> torch.Tensor:
        return img.flatten(1) / 255


def test_lpips_is_the_squared_distance_of_the_files_features(trained: Any, tmp_path: Path) -> None:
    torchscript.script(ToyLPIPS()).save(str(tmp_path / "vgg.pt"))
    batch = batch_of(trained.G_ema)
    shifted = dataclasses.replace(batch, img=batch.img + 0.5)
    term = make("lpips", trained, trained.G_ema, weight=2, lpips=str(tmp_path / "vgg.pt"))
    torch.testing.assert_close(term(shifted), torch.full([4], 2 * 3 * 16 * 16 * 0.25**2))
    mask = write_mask(tmp_path / "mask.png")
    masked = make("lpips", trained, trained.G_ema, lpips=str(tmp_path / "vgg.pt"), mask=mask)
    torch.testing.assert_close(masked(shifted), torch.full([4], 3 * 16 * 8 * 0.25**2))
    with pytest.raises(ValueError, match="expected the path of a TorchScript file"):
        make("lpips", trained, trained.G_ema)


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_gradients_of_the_terms(name: str, trained: Any) -> None:
    """Towards lower values: a step against the gradient reduces the term."""
    G = tiny.tiny_generator(seed=3)
    term = make(name, trained, G)
    params = list(G.synthesis.requires_grad_(True).parameters())
    before = term(batch_of(G)).mean()
    gradients = torch.autograd.grad(before, params, allow_unused=True)
    with torch.no_grad():
        norm = sum(g.square().sum() for g in gradients if g is not None).sqrt()
        for param, gradient in zip(params, gradients):
            if gradient is not None:
                param -= 1e-3 * gradient / norm
        assert float(term(batch_of(G)).mean()) < float(before)


def test_the_teachers_image_is_made_once_for_all_terms(trained: Any) -> None:
    comparison = Comparison(trained, trained.G_ema)
    first, second = batch_of(trained.G_ema), batch_of(trained.G_ema)
    assert comparison.teacher_image(first) is comparison.teacher_image(first)
    assert comparison.teacher_image(first) is not comparison.teacher_image(second)
    torch.testing.assert_close(comparison.teacher_image(first), draw(trained.G_ema, first.z, first.c, first.ws))


def test_features_of_a_biggan_discriminator() -> None:
    D = tiny_biggan.tiny_discriminator().eval()
    img, c = tiny_biggan.inputs(D)
    maps = perceptual.block_features(D, img)
    assert len(maps) == perceptual.num_blocks(D) > 1
    assert maps[0].shape[2] > maps[-1].shape[2]
    last: list[torch.Tensor] = []
    D.blocks[-1][-1].register_forward_hook(lambda module, args, result: last.append(result))
    D(img, c)
    torch.testing.assert_close(maps[-1], torch.nn.functional.normalize(last[0], dim=1), atol=1e-4, rtol=1e-4)
