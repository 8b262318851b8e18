"""Distillation without data: its schedule, what it trains, and how a game may follow."""
import copy
from typing import Any

import pytest
import torch

from dgl import teacher as teachers
from dgl.distillation import Distillation
from dgl.loss import DGLHingeLoss, DGLLoss
from tests import tiny, tiny_biggan
from torch_utils import distributed, training_stats
from torch_utils.gradient_guard import GradientGuard
from training import optimization
from training.data.generated import latents
from training.loss import GenBatch, Part, Step

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pkl")


def make(path: str, **options: Any) -> DGLLoss:
    G, D = tiny.tiny_generator(seed=7).train(), tiny.tiny_discriminator(seed=8).train()
    kd = {"rgb": 1.0, "feature": 0.5}
    return DGLLoss(CPU, G, D, teachers=[{"url": path}], **{"kd": kd, "distil_kimg": 1, **options})


def step(cur_nimg: int = 0) -> Step:
    z, c = tiny.latents()
    return Step(tiny.images(), c, z, c, gain=1, cur_nimg=cur_nimg)


def test_the_learning_rate_rises_and_falls() -> None:
    distillation = Distillation(tiny.tiny_generator(), [], lr=2.0, num_images=1000, warmup_images=100)
    expected = {0: 0.02, 49: 1.0, 99: 2.0, 300: 2.0, 400: 2.0, 700: 1.0, 970: 0.1}
    assert {n: pytest.approx(distillation.learning_rate(n)) for n in expected} == expected


def test_the_loss_is_the_sum_of_the_terms_of_images_with_constant_noise(path: str) -> None:
    loss = make(path)
    (phase,) = loss.extra_phases()
    assert (phase.name, phase.module) == ("distilmain", loss.base.G.synthesis)
    result = tiny.gradients(loss, "distilmain", phase.module)
    teacher = teachers.load(path)
    G = loss.base.G
    z, c = latents(G, 0, range(4))
    G.synthesis.requires_grad_(True)
    ws = G.mapping(z, c, skip_w_avg_update=True)
    img = G.synthesis(ws, noise_mode="const")
    batch = GenBatch(z, c, ws, img, img, 0)
    total = sum(term.term(batch).mean() for term in loss.terms[1:])
    target = teacher.G_ema.synthesis(ws, noise_mode="const")
    torch.testing.assert_close(loss.terms[1].term(batch), (img - target).abs().mean(dim=[1, 2, 3]))
    for name, p in G.synthesis.named_parameters():
        if name.endswith("noise_strength"):
            continue
        torch.testing.assert_close(result[name], torch.autograd.grad(total, p, retain_graph=True)[0], msg=name)
    unused = torch.random.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(result["random_state"], torch.random.get_rng_state()), "nothing random in it"
    torch.random.set_rng_state(unused)


@pytest.mark.parametrize(("ranks", "chunk"), [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2)])
def test_latents_depend_on_seed_and_number_alone(ranks: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two iterations of eight images, shared by ranks and passes, see images 16 to 31, whatever the step's own are."""
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    G = tiny.tiny_generator(c_dim=3)
    expected = latents(G, 5, range(16, 32))
    latents_by_image: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for rank in range(ranks):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        distillation = Distillation(G, [], lr=1.0, num_images=100, seed=5)
        for cur_nimg in (16, 24):
            for number in range(0, 8 // ranks, chunk):
                own = torch.randn([chunk, 16])
                z, c = distillation._latents(Step(own, own, own, own[:, :3], gain=1, cur_nimg=cur_nimg))
                for i in range(chunk):
                    latents_by_image[cur_nimg + rank + ranks * (number + i)] = z[i], c[i]
    assert sorted(latents_by_image) == list(range(16, 32))
    assert torch.equal(torch.stack([latents_by_image[i][0] for i in sorted(latents_by_image)]), expected[0])
    assert torch.equal(torch.stack([latents_by_image[i][1] for i in sorted(latents_by_image)]), expected[1])


def test_discriminators_may_have_a_start_in_the_game(path: str) -> None:
    loss = make(path, game_warmup_kimg=0.5, dgl_weight=1)
    assert [loss.needs_images(n) for n in (0, 999, 1000)] == [False, False, True]
    assert loss.starts_from_average()
    assert not make(path, distil_kimg=0).starts_from_average()
    G, D = loss.base.G, loss.base.D
    assert list(tiny.gradients(loss, "Gmain", G, cur_nimg=1499)) == ["random_state"]
    assert list(tiny.gradients(loss, "Greg", G, cur_nimg=1000)) == ["random_state"]
    assert len(tiny.gradients(loss, "Dmain", D, cur_nimg=1000)) > 1
    assert len(tiny.gradients(loss, "Gmain", G, cur_nimg=1500)) > 1


def test_the_factor_of_the_terms_in_the_game(path: str, statistics: training_stats.Collector) -> None:
    z, c = tiny.latents()
    losses = [make(path, game_kd=factor) for factor in (1, 0.25, 0)]
    G = losses[0].base.G
    ws = G.mapping(z, c)
    img = G.synthesis(ws, noise_mode="const")
    batch = GenBatch(z, c, ws, img, img, 1000)
    whole, quarter, none = (loss.terms[1](batch) for loss in losses)
    torch.testing.assert_close(quarter, 0.25 * whole)
    assert none is None
    tiny.gradients(losses[2], "distilmain", losses[2].base.G.synthesis)
    statistics.update()
    assert statistics.num("Loss/distil/kd_rgb") == 4, "distillation itself is not concerned"


def test_the_mapping_network_and_its_average_stay(path: str) -> None:
    loss = make(path)
    before = copy.deepcopy(loss.base.G.mapping.state_dict())
    (phase,) = loss.extra_phases()
    weights = phase.module.b8.conv0.weight.clone()
    guard = GradientGuard(CPU)
    for _ in range(2):
        phase.opt.zero_grad(set_to_none=True)
        phase.module.requires_grad_(True)
        loss.accumulate_gradients(phase.network, phase.part, step())
        phase.module.requires_grad_(False)
        optimization.step(phase, guard)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loss.base.G.mapping.state_dict().items())
    assert not torch.equal(phase.module.b8.conv0.weight, weights)
    assert phase.opt.param_groups[0]["lr"] == loss.distillation.learning_rate(0)


@pytest.mark.parametrize("phase", ["Gmain", "Greg", "Dmain", "Dreg"])
def test_there_is_no_game_until_it_ends_and_no_distillation_phase_after(
    phase: str, path: str, statistics: training_stats.Collector
) -> None:
    loss = make(path)
    module = loss.base.G if phase[0] == "G" else loss.base.D
    assert list(tiny.gradients(loss, phase, module, cur_nimg=999)) == ["random_state"]
    assert len(tiny.gradients(loss, phase, module, cur_nimg=1000)) > 1
    assert list(tiny.gradients(loss, "distilmain", loss.base.G.synthesis, cur_nimg=1000)) == ["random_state"]
    assert (loss.stage(999), loss.stage(1000)) == (0, 1)
    statistics.update()
    kept_on = {"Loss/G/kd_rgb", "Loss/G/kd_feature"} if phase == "Gmain" else set()
    assert {name for name in statistics.names() if "kd" in name and statistics.num(name)} == kept_on


def test_statistics(path: str, statistics: training_stats.Collector) -> None:
    loss = make(path)
    tiny.gradients(loss, "distilmain", loss.base.G.synthesis)
    statistics.update()
    numbers = {name: statistics.num(name) for name in statistics.names() if statistics.num(name)}
    assert numbers == {"Loss/distil/kd_rgb": 4, "Loss/distil/kd_feature": 4, "Loss/distil/loss": 4,
                       "Loss/distil/lr": 1}
    total = statistics.mean("Loss/distil/kd_rgb") + statistics.mean("Loss/distil/kd_feature")
    assert statistics.mean("Loss/distil/loss") == pytest.approx(total)


def test_the_teacher_is_the_reference_of_the_samples(path: str) -> None:
    assert list(make(path).references()) == ["teacher"]
    assert make(path, distil_kimg=0).references() == {}


def test_a_biggan_is_distilled_in_eval_mode(tmp_path: Any) -> None:
    path = tiny_biggan.write_teacher(tmp_path / "teacher.pkl")
    G, D = tiny_biggan.tiny_generator(seed=20).train(), tiny_biggan.tiny_discriminator(seed=21).train()
    loss = DGLHingeLoss(CPU, G, D, teachers=[{"url": path}], kd={"rgb": 1.0, "feature": 1.0}, distil_kimg=1)
    (phase,) = loss.extra_phases()
    assert phase.module is G
    z, c = tiny_biggan.inputs(G)
    labels = torch.nn.functional.one_hot(c, 3).float()
    buffers = {name: buffer.clone() for name, buffer in G.named_buffers()}
    images = torch.zeros([4, 3, 32, 32])
    G.requires_grad_(True)
    loss.accumulate_gradients("distil", Part.MAIN, Step(images, labels, z, labels, gain=1, cur_nimg=0))
    assert G.training
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in G.named_buffers())
    assert sum(p.grad is not None for p in G.parameters()) > 10
    loss.accumulate_gradients("G", Part.BOTH, Step(images, labels, z, labels, gain=1, cur_nimg=0))
    assert all(p.grad is None for p in D.parameters())


def test_the_game_of_a_distilled_biggan_keeps_its_statistics(tmp_path: Any) -> None:
    path = tiny_biggan.write_teacher(tmp_path / "teacher.pkl")

    def statistics_after(distil_kimg: float) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        G, D = tiny_biggan.tiny_generator(seed=20).train(), tiny_biggan.tiny_discriminator(seed=21).train()
        loss = DGLHingeLoss(CPU, G, D, teachers=[{"url": path}], kd={"rgb": 1.0}, distil_kimg=distil_kimg)
        before = {name: b.clone() for name, b in G.named_buffers() if name.endswith(("stored_mean", "stored_var"))}
        z, c = tiny_biggan.inputs(G)
        labels = torch.nn.functional.one_hot(c, 3).float()
        for network, module in (("D", D), ("G", G)):
            module.requires_grad_(True)
            loss.accumulate_gradients(
                network, Part.BOTH, Step(torch.zeros([4, 3, 32, 32]), labels, z, labels, gain=1, cur_nimg=1000))
            module.requires_grad_(False)
        return before, {name: G.get_buffer(name) for name in before}

    before, after = statistics_after(distil_kimg=1)
    assert len(before) > 4
    assert all(torch.equal(after[name], before[name]) for name in before)
    before, after = statistics_after(distil_kimg=0)
    assert not any(torch.equal(after[name], before[name]) for name in before), "without distillation they move"
