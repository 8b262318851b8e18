"""Refit of BigGAN slices: nearer to the teacher by class and latent, exact where nothing is lost, its statistics."""
import copy
from fractions import Fraction
from typing import Any

import pytest
import torch

from dgl import prune
from dgl.architectures import plan_of
from dgl.refit import RefitOptions, Report, applies, biggan, prepared, refit_network, walk
from dgl.student import Cut, resized, slice_student
from dgl.teacher import Teacher
from dnnlib.errors import UserError
from tests import tiny_biggan as tiny
from tests.dgl.test_biggan_slices import keep_lists, silence

OPTIONS = RefitOptions(num_latents=8)
NAMES = tuple(tiny.GENERATORS)


def make(name: str) -> Any:
    """A tiny generator, with attention at low resolutions only, where it is cheap."""
    return tiny.tiny_generator(name, **({"G_attn": "8"} if name == "hier64" else {}))


def refitted(
    G: Any, keep: dict[str, torch.Tensor], options: RefitOptions = OPTIONS
) -> tuple[Any, Report]:
    """The refitted slice of a generator."""
    narrow = prune.slice_network(prepared(G), keep)
    report = refit_network("net", G, narrow, keep, options)
    assert report is not None
    return narrow, report


def images(*networks: Any) -> list[torch.Tensor]:
    """Images of the same latents and of all classes."""
    z = torch.randn([24, networks[0].z_dim], generator=torch.Generator().manual_seed(11))
    return [network(z, torch.arange(24) % 3) for network in networks]


@pytest.mark.parametrize("name", NAMES)
def test_a_refitted_generator_is_nearer_to_its_teacher(name: str) -> None:
    G = make(name)
    before = copy.deepcopy(G.state_dict())
    keep = keep_lists(plan_of(G))
    random_state = torch.random.get_rng_state()
    narrow, report = refitted(G, keep)
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(tensor, before[key]) for key, tensor in G.state_dict().items())
    assert report.psnr_after > report.psnr_before + 1
    assert len(report.layers) == biggan.num_layers(narrow)
    assert all(fit.after <= fit.before for fit in report.layers)
    target, *others = images(G, narrow, prune.slice_network(G, keep), prune.slice_network(prepared(G), keep))
    errors = [float((img - target).square().mean()) for img in others]
    assert errors[0] < 0.8 * min(errors[1:])


@pytest.mark.parametrize("name", NAMES)
def test_a_slice_that_loses_nothing_is_not_changed(name: str) -> None:
    G = prepared(make(name))
    plan = plan_of(G)
    keep = keep_lists(plan)
    silence(G, plan, keep)
    narrow, report = refitted(G, keep)
    whole, exact = images(G, narrow)
    assert torch.allclose(whole, exact, atol=1e-4)
    assert max(fit.before for fit in report.layers if not fit.layer.endswith("theta")) < 1e-6
    plain = prune.slice_state(G.state_dict(), plan, keep)
    for key, tensor in narrow.state_dict().items():
        if "theta" not in key:  # scores leave queries free where keys are few
            assert torch.allclose(tensor, plain[key], atol=1e-3, rtol=1e-3), key


def test_the_preparation_computes_the_same() -> None:
    G = tiny.tiny_generator()
    folded = prepared(G)
    assert (G.options["G_param"], folded.options["G_param"]) == ("SN", "none")
    assert torch.equal(*images(G, folded))
    assert prepared(folded) is folded


def test_normalised_channels_have_the_teachers_moments() -> None:
    G = tiny.tiny_generator("shared32")
    keep = keep_lists(plan_of(G))
    narrow, _ = refitted(G, keep, RefitOptions(num_latents=64))
    z, c = torch.randn([512, G.z_dim], generator=torch.Generator().manual_seed(1)), torch.arange(512) % 3
    inputs_of_sets: list[list[torch.Tensor]] = [[], []]
    for network, inputs in zip((G, narrow), inputs_of_sets):
        for block in (stage[0] for stage in network.blocks):
            for norm in (block.bn1, block.bn2):
                norm.register_forward_pre_hook(lambda module, args, inputs=inputs: inputs.append(
                    (args[0] - module.stored_mean[:, None, None]) / (module.stored_var + module.eps).sqrt()[:, None,
                                                                                                       None]))
        network(z, c)
    sets = [name for i in range(3) for name in (f"stream{i}", f"blocks.{i}.0.hidden")]
    for name, wide, own in zip(sets, *inputs_of_sets):
        wide = wide[:, keep[name]]
        assert (wide.mean([0, 2, 3]) - own.mean([0, 2, 3])).abs().max() < 0.15, name
        assert (wide.var([0, 2, 3]) / own.var([0, 2, 3])).log().abs().max() < 0.3, name


def test_queries_are_fitted_to_the_scores() -> None:
    """Doubling the keys halves the queries that give the teacher's scores."""
    G = prepared(tiny.tiny_generator("plain32"))
    keep = {name: torch.arange(size) for name, size in plan_of(G).sets.items()}
    narrow = copy.deepcopy(G)
    walk = biggan.Walk(G, narrow, keep, OPTIONS, lambda: None)
    x = torch.randn([8, 8, 16, 16], generator=torch.Generator().manual_seed(3))
    walk.batches = [biggan._Batch([], [x, x])]
    attention = [network.blocks[1][1] for network in (G, narrow)]
    attention[1].phi.weight.mul_(2)
    walk._queries("theta", *attention, [[x, x]])
    assert torch.allclose(attention[1].theta.weight * 2, attention[0].theta.weight, rtol=0.05, atol=0.02)
    assert walk.fits[0].after < 0.01 < walk.fits[0].before


def test_the_seed_decides_and_the_size_of_passes_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    G = tiny.tiny_generator()
    keep = keep_lists(plan_of(G))
    states = [refitted(G, keep, RefitOptions(num_latents=8, seed=seed))[0].state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["blocks.1.0.conv1.weight"], states[2]["blocks.1.0.conv1.weight"])
    monkeypatch.setattr(walk, "BATCH_BYTES", 1)
    single = refitted(G, keep, RefitOptions(num_latents=8))[0].state_dict()
    assert all(torch.allclose(tensor, single[name], atol=1e-3, rtol=1e-3) for name, tensor in states[0].items())


def test_little_memory_means_few_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    G = tiny.tiny_generator("shared32")
    counts: list[int] = []
    block = biggan.Walk._block

    def spy(walk: Any, i: int, blocks: list[Any]) -> None:
        counts.append(sum(len(batch.x[0]) for batch in walk.batches))
        block(walk, i, blocks)

    monkeypatch.setattr(biggan.Walk, "_block", spy)
    refitted(G, keep_lists(plan_of(G)), RefitOptions(num_latents=16, memory=100000))
    each = 4 * (8 + 4) * 8**2  # bytes of the features of teacher and student behind the first block
    assert counts == [100000 // each, 100000 // (4 * each), 4]


def test_a_student_is_refitted_and_at_full_width_it_is_the_teacher() -> None:
    nets = tiny.tiny_networks()
    teacher = Teacher("t.pkl", "0", nets["G"], nets["G_ema"], nets["D"], None)
    half = Fraction(1, 2)
    student = slice_student(teacher, Cut(half, "first", refit=True), d_width=half)
    assert list(student.refits) == ["G_ema", "G"], "discriminators are only sliced"
    empty = resized(nets["G_ema"], half, is_refitted=True)
    shapes = {name: tensor.shape for name, tensor in empty.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in student.G_ema.state_dict().items()}
    whole = slice_student(teacher, Cut(Fraction(1), "first", refit=True))
    assert whole.refits == {}
    assert torch.equal(*images(nets["G_ema"], whole.G_ema))
    assert all(torch.equal(tensor, nets["G"].state_dict()[name]) for name, tensor in whole.G.state_dict().items())
    assert resized(nets["G_ema"], Fraction(1), is_refitted=True).options["G_param"] == "SN"


def test_what_cannot_be_refitted() -> None:
    G = tiny.tiny_generator()
    keep = keep_lists(plan_of(G))
    with pytest.raises(ValueError, match="expected a slice of `prepared"):
        refit_network("net", G, prune.slice_network(G, keep), keep, OPTIONS)
    assert not applies(tiny.tiny_discriminator())
    G.blocks[0][0].conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(UserError, match=r"values in blocks\.0\.0\.conv1\.weight of net are NaN or infinite"):
        refit_network("net", G, G, keep, OPTIONS)
