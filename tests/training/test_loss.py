"""The losses: worked arithmetic, the seam for terms, phases, statistics and random numbers."""
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.tiny import gradients
from torch_utils import training_stats
from training.loss import GenBatch, Loss, Part, Step, StyleGAN2Loss

CPU = torch.device("cpu")


class LinearD(torch.nn.Module):
    """D(x) = a · x."""

    def __init__(self, a: torch.Tensor) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(a)

    def forward(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return (img * self.a).sum(dim=[1, 2, 3])[:, None]


class LinearG(torch.nn.Module):
    """G(z) = b · z[0] everywhere on a 4x4 image; z is w, twice."""

    c_dim = 0
    num_ws = 2

    def __init__(self, b: float) -> None:
        super().__init__()
        self.b = torch.nn.Parameter(torch.tensor(b))

    def mapping(self, z: torch.Tensor, c: torch.Tensor, skip_w_avg_update: bool = False) -> torch.Tensor:
        return (z * self.b / self.b.detach())[:, None].repeat(1, 2, 1)

    def synthesis(self, ws: torch.Tensor) -> torch.Tensor:
        return (self.b * ws[:, 0, 0])[:, None, None, None].expand(-1, 1, 4, 4)


def make(**kwargs: Any) -> StyleGAN2Loss:
    return StyleGAN2Loss(CPU, tiny.tiny_generator().train(), tiny.tiny_discriminator().train(), **kwargs)


def without_noise(loss: StyleGAN2Loss) -> StyleGAN2Loss:
    """No random numbers but those of style mixing and path lengths."""
    for name, tensor in loss.G.named_parameters():
        if name.endswith("noise_strength"):
            tensor.data.zero_()
    return loss


# Worked arithmetic.


@pytest.mark.parametrize("gain", [1, 16])
def test_r1_of_a_linear_discriminator(gain: int, statistics: training_stats.Collector) -> None:
    a = torch.arange(48.0).reshape(3, 4, 4) / 48
    D = LinearD(a)
    loss = StyleGAN2Loss(CPU, LinearG(1.0), D, r1_gamma=3)
    batch = {"real_img": tiny.images(5, resolution=4), "real_c": None, "gen_z": None, "gen_c": None}
    result = gradients(loss, "Dreg", D, gain=gain, **batch)
    assert torch.allclose(result["a"], gain * 3 * a)  # of gain * 3/2 * |a|²
    statistics.update()
    assert statistics.num("Loss/r1_penalty") == 5
    assert statistics.mean("Loss/r1_penalty") == pytest.approx(float(a.square().sum()))
    assert statistics.mean("Loss/D/reg") == pytest.approx(1.5 * float(a.square().sum()))


@pytest.mark.parametrize(("num", "shrink", "used"), [(5, 2, 2), (4, 2, 2), (4, 4, 1), (1, 2, 1), (4, 1, 4)])
def test_path_length_of_a_linear_generator(
    num: int,
    shrink: int,
    used: int,
    monkeypatch: pytest.MonkeyPatch,
    statistics: training_stats.Collector,
) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    G = LinearG(0.7)
    loss = StyleGAN2Loss(CPU, G, LinearD(torch.zeros(1, 4, 4)), style_mixing_prob=0, pl_batch_shrink=shrink)
    loss.pl_mean.fill_(0.5)
    z = torch.ones(num, 3)
    result = gradients(loss, "Greg", G, real_img=None, real_c=None, gen_z=z, gen_c=torch.zeros(num, 0), gain=4)
    # The noise is 1/4 everywhere, so that the gradient of sum(img * noise) with respect to the first w is 4b, of the
    # second 0: the length is sqrt((16 b² + 0) / 2).
    length = 8**0.5 * 0.7
    mean = 0.5 + 0.01 * (length - 0.5)
    assert float(loss.pl_mean) == pytest.approx(mean)
    statistics.update()
    assert statistics.num("Loss/pl_penalty") == used
    assert statistics.mean("Loss/pl_penalty") == pytest.approx((length - mean) ** 2)
    assert statistics.mean("Loss/G/reg") == pytest.approx(2 * (length - mean) ** 2)
    # The running mean contains the length with weight 0.01, and keeps its gradient.
    assert float(result["b"]) == pytest.approx(4 * 2 * 2 * (length - mean) * 0.99 * 8**0.5, rel=1e-5)


def test_logistic_losses_of_constant_logits(statistics: training_stats.Collector) -> None:
    D = LinearD(torch.full([1, 4, 4], 1 / 16))  # the mean of the image
    loss = StyleGAN2Loss(CPU, LinearG(2.0), D, style_mixing_prob=0)
    z = torch.ones(2, 3)  # images of value 2
    batch = {"real_img": torch.full([2, 1, 4, 4], -3.0), "real_c": None, "gen_z": z, "gen_c": torch.zeros(2, 0)}
    g = gradients(loss, "Gmain", loss.G, **batch)
    d = gradients(loss, "Dmain", D, **batch)
    sigmoid = torch.sigmoid(torch.tensor(2.0))
    assert float(g["b"]) == pytest.approx(-(1 - float(sigmoid)) * 2)  # z also grows with b: d(b²) = 2b, at b = 2, z = 1
    real = 1 - torch.sigmoid(torch.tensor(-3.0))
    assert torch.allclose(d["a"], (sigmoid * 2 + real * 3).expand(1, 4, 4))
    statistics.update()
    assert statistics.mean("Loss/G/loss") == pytest.approx(float(F.softplus(torch.tensor(-2.0))))
    assert statistics.mean("Loss/scores/fake") == 2
    assert statistics.mean("Loss/signs/fake") == 1
    assert statistics.num("Loss/signs/fake") == 4  # Gmain and Dmain
    assert statistics.mean("Loss/scores/real") == -3
    assert statistics.mean("Loss/signs/real") == -1
    total = F.softplus(torch.tensor(2.0)) + F.softplus(torch.tensor(3.0))
    assert statistics.mean("Loss/D/loss") == pytest.approx(float(total))


# Phases.


def test_names_and_numbers_of_statistics(statistics: training_stats.Collector) -> None:
    loss = make()
    for phase in ("Gmain", "Greg", "Dmain", "Dreg"):
        gradients(loss, phase, loss.G if phase[0] == "G" else loss.D)
    statistics.update()
    assert {name: statistics.num(name) for name in statistics.names()} == {
        "Loss/scores/fake": 8,
        "Loss/signs/fake": 8,
        "Loss/G/loss": 4,
        "Loss/pl_penalty": 2,
        "Loss/G/reg": 2,
        "Loss/scores/real": 8,
        "Loss/signs/real": 8,
        "Loss/D/loss": 4,
        "Loss/r1_penalty": 4,
        "Loss/D/reg": 4,
    }
    assert statistics.names()[:5] == ["Loss/scores/fake", "Loss/signs/fake", "Loss/G/loss", "Loss/pl_penalty",
                                      "Loss/G/reg"]


@pytest.mark.parametrize("network", ["G", "D"])
def test_both_is_main_and_reg(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)
    loss = without_noise(make(style_mixing_prob=0))
    module = getattr(loss, network)

    def run(phase: str) -> dict[str, torch.Tensor]:
        loss.pl_mean.zero_()
        return gradients(loss, network + phase, module, gain=3)

    main, reg, both = run("main"), run("reg"), run("both")
    assert set(reg) < set(both)
    for name in both.keys() - {"random_state"}:
        if not name.endswith("noise_strength"):  # depends on the noise
            expected = main[name] + reg.get(name, torch.zeros([]))
            assert torch.allclose(both[name], expected, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize(("phase", "option"), [("Greg", "pl_weight"), ("Dreg", "r1_gamma")])
def test_a_regulariser_of_weight_zero_does_nothing(phase: str, option: str) -> None:
    loss = make(**{option: 0})
    result = gradients(loss, phase, loss.G if phase[0] == "G" else loss.D)
    assert list(result) == ["random_state"]
    torch.manual_seed(0)
    assert torch.equal(result["random_state"], torch.random.get_rng_state())


@pytest.mark.parametrize("phase", ["main", "Tmain", "GDreg", "gboth"])
def test_unknown_phases_are_named(phase: str) -> None:
    with pytest.raises(ValueError, match=f"^unknown training phase '{phase}'$"):
        gradients(make(), phase, torch.nn.Identity())


@pytest.mark.parametrize("phase", ["Gmain", "Greg", "Dmain", "Dreg"])
def test_a_phase_touches_its_own_network_only(phase: str) -> None:
    loss = make()
    module, other = (loss.G, loss.D) if phase[0] == "G" else (loss.D, loss.G)
    state = {name: tensor.clone() for name, tensor in other.named_parameters()}
    assert len(gradients(loss, phase, module)) > 1
    assert all(p.grad is None for p in other.parameters())
    assert all(torch.equal(p, state[name]) for name, p in other.named_parameters())


def test_gradients_of_chunks_add_up() -> None:
    loss = without_noise(make(style_mixing_prob=0, r1_gamma=1))
    loss.D.b4.mbstd = None  # the only link between samples
    loss.D.b4.conv.weight.data = loss.D.b4.conv.weight.data[:, :-1].clone()
    loss.G.double(), loss.D.double()  # in single precision some activation changes its sign
    z, c = (tensor.double() for tensor in tiny.latents(4))
    img = tiny.images(4).double()
    for phase in ("Dmain", "Dreg"):
        with tiny.double_precision():
            whole = gradients(loss, phase, loss.D, real_img=img, gen_z=z)
            halves = [gradients(loss, phase, loss.D, real_img=img[half], gen_z=z[half], real_c=c[half], gen_c=c[half])
                      for half in (slice(0, 2), slice(2, 4))]
        for name in whole.keys() - {"random_state"}:
            mean = (halves[0][name] + halves[1][name]) / 2
            assert torch.allclose(whole[name], mean), name


# The seam.


class Term:
    """Calls a function, and remembers what it was given."""

    name = "extra"

    def __init__(self, function: Callable[[GenBatch], torch.Tensor | None]) -> None:
        self.function = function
        self.batches: list[GenBatch] = []

    def __call__(self, batch: GenBatch) -> torch.Tensor | None:
        self.batches.append(batch)
        return self.function(batch)


def mean_of_images(batch: GenBatch) -> torch.Tensor:
    return batch.img.mean(dim=[1, 2, 3])


def test_a_term_is_added_to_the_loss_of_the_generator_alone(statistics: training_stats.Collector) -> None:
    loss = make()
    term = Term(mean_of_images)
    plain = gradients(loss, "Gmain", loss.G)
    loss.g_terms.append(term)
    more = gradients(loss, "Gmain", loss.G, gain=1)
    term.function = lambda batch: 3 * mean_of_images(batch)
    most = gradients(loss, "Gmain", loss.G, gain=1)
    assert torch.equal(plain["random_state"], more["random_state"])
    assert any(not torch.equal(plain[name], more[name]) for name in plain)
    for name in plain:  # linear in the weight
        if name != "random_state":
            assert torch.allclose(most[name] - plain[name], 3 * (more[name] - plain[name]), rtol=1e-3, atol=1e-5), name
    for phase, module in (("Greg", loss.G), ("Dmain", loss.D), ("Dreg", loss.D)):
        gradients(loss, phase, module)
    assert len(term.batches) == 2
    statistics.update()
    assert statistics.num("Loss/G/extra") == 8
    values = mean_of_images(term.batches[0]).mean().item()
    assert statistics.mean("Loss/G/extra") == pytest.approx((values + 3 * values) / 2, rel=1e-4)


def test_a_term_that_returns_none_changes_nothing() -> None:
    loss = make()
    plain = gradients(loss, "Gmain", loss.G)
    loss.g_terms.append(Term(lambda batch: None))
    for name, tensor in gradients(loss, "Gmain", loss.G).items():
        assert torch.equal(tensor, plain[name]), name


def test_what_a_term_is_given() -> None:
    noted = []

    class Flip(torch.nn.Module):
        def forward(self, img: torch.Tensor) -> torch.Tensor:
            noted.append(img.flip(3))
            return noted[-1]

    term = Term(mean_of_images)
    loss = make(augment_pipe=Flip(), g_terms=[term])
    gradients(loss, "Gmain", loss.G, cur_nimg=1234)
    (batch,) = term.batches
    z, c = tiny.latents()
    assert torch.equal(batch.z, z)
    assert torch.equal(batch.c, c)
    assert batch.ws.shape == (4, 6, 16)
    assert batch.img.shape == (4, 3, 16, 16)
    assert batch.img_aug is noted[0]
    assert torch.equal(batch.img_aug, batch.img.flip(3))
    assert batch.cur_nimg == 1234


@pytest.mark.parametrize("shape", [(), (4, 1), (1,), (3,)])
def test_a_term_of_the_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    loss = make(g_terms=[Term(lambda batch: torch.zeros(shape))])
    with pytest.raises(ValueError, match=r"^loss term 'extra': expected a per-sample loss of shape \(4,\), found \("):
        gradients(loss, "Gmain", loss.G)


def test_terms_are_made_from_their_class_names() -> None:
    loss = make(g_terms=[{"class_name": "tests.tiny.ConstantTerm", "value": 2.0}])
    assert [term.name for term in loss.g_terms] == ["constant"]
    assert torch.equal(loss.g_terms[0](GenBatch(*[torch.zeros(3)] * 5, cur_nimg=0)), torch.full([3], 2.0))


def test_the_base_class_is_what_the_loop_may_rely_on() -> None:
    loss = Loss()
    assert loss.extra_phases() == []
    assert loss.stage(10**9) == 0
    assert loss.state_dict() == {}
    loss.load_state_dict({})
    loss.begin_stage()
    with pytest.raises(NotImplementedError):
        loss.accumulate_gradients("G", Part.MAIN, Step(*[torch.zeros(1)] * 4, gain=1, cur_nimg=0))


def test_state_is_the_mean_path_length() -> None:
    loss = make()
    loss.pl_mean.fill_(3)
    state = loss.state_dict()
    loss.begin_stage()
    assert float(loss.pl_mean) == 0
    loss.load_state_dict(state)
    assert float(loss.pl_mean) == 3
    loss.pl_mean.fill_(1)
    assert float(state["pl_mean"]) == 3


# Random numbers, style mixing, averages.


def test_style_mixing_draws_an_integer_a_number_and_latents() -> None:
    loss = make(style_mixing_prob=0.5)
    z, c = tiny.latents()
    w, = loss.G.mapping(z, c, skip_w_avg_update=True)[None, :, 0]
    mixed = 0
    for seed in range(30):
        torch.manual_seed(seed)
        cutoff = int(torch.randint(1, 6, []))
        cutoff = cutoff if float(torch.rand([])) < 0.5 else 6
        mixed += cutoff < 6
        other = loss.G.mapping(torch.randn_like(z), c, skip_w_avg_update=True)[:, 0]
        torch.manual_seed(seed)
        _, ws = loss.generate(z, c)
        for index in range(6):
            assert torch.equal(ws[:, index], w if index < cutoff else other)
    assert 0 < mixed < 30


@pytest.mark.parametrize("prob", [0, 0.9])
@pytest.mark.parametrize(("phase", "count"), [("Gmain", 4), ("Greg", 2), ("Dmain", 4)])
def test_each_pass_of_the_generator_moves_w_avg_once(prob: float, phase: str, count: int) -> None:
    loss = make(style_mixing_prob=prob)
    z, c = tiny.latents()
    before = loss.G.mapping.w_avg.clone()
    w = loss.G.mapping(z[:count], c[:count], skip_w_avg_update=True)[:, 0].mean(dim=0)
    gradients(loss, phase, loss.G if phase[0] == "G" else loss.D)
    assert torch.allclose(loss.G.mapping.w_avg, w.lerp(before, 0.995), atol=1e-6)


def test_without_style_mixing_one_latent_makes_all_styles() -> None:
    _, ws = make(style_mixing_prob=0).generate(*tiny.latents())
    assert (ws == ws[:, :1]).all()


def test_same_seed_same_bits() -> None:
    for phase in ("Gmain", "Greg", "Dmain", "Dreg"):
        runs = []
        for _ in range(2):
            loss = make()
            runs.append(gradients(loss, phase, loss.G if phase[0] == "G" else loss.D, seed=7))
        assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
