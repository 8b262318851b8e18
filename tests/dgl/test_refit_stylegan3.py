"""Refit of StyleGAN3 slices: what can be expressed is found, and both configurations come closer to their teacher."""
from typing import Any

import pytest
import torch

from dgl import prune
from dgl.architectures import plan_of
from dgl.refit import RefitOptions, applies, refit_network
from dgl.refit.stylegan3 import num_layers
from tests.dgl.test_refit import half
from tests.training.test_networks_stylegan3 import tiny

OPTIONS = RefitOptions(num_latents=16)
SMALL = {"channel_max": 16, "channel_base": 512, "num_layers": 3, "num_critical": 1, "margin_size": 3}
R = {**SMALL, "conv_kernel": 1, "use_radial_filters": True, "c_dim": 2}


def refitted(teacher: Any, keep: dict[str, torch.Tensor], options: RefitOptions = OPTIONS) -> tuple[Any, Any]:
    """The refitted slice and the report."""
    narrow = prune.slice_network(teacher, keep)
    return narrow, refit_network("G_ema", teacher, narrow, keep, options)


@pytest.mark.parametrize("kwargs", [SMALL, R], ids=["T", "R"])
def test_a_slice_comes_closer_to_its_teacher(kwargs: dict[str, Any]) -> None:
    teacher = tiny(**kwargs)
    narrow, report = refitted(teacher, half(teacher))
    assert [fit.layer for fit in report.layers] == ["input", "L0", "L1", "L2", "L3"]
    assert len(report.layers) == num_layers(narrow)
    assert all(fit.after < 0.8 * fit.before for fit in report.layers)
    assert report.psnr_after > report.psnr_before + 1
    again, _ = refitted(teacher, half(teacher))
    assert all(torch.equal(a, b) for a, b in zip(narrow.state_dict().values(), again.state_dict().values()))


def doubled(teacher: Any) -> None:
    """Makes the second half of all sets a copy of the first."""
    plan = plan_of(teacher)
    tensors = dict(teacher.named_parameters()) | dict(teacher.named_buffers())
    for name, rule in plan.rules.items():
        for axis in rule.axes:
            first = tensors[name].narrow(axis, 0, tensors[name].shape[axis] // 2).clone()
            tensors[name].copy_(torch.cat([first, first], dim=axis))


def test_copies_of_channels_are_made_up_for_to_the_last_digits() -> None:
    teacher = tiny(**SMALL)
    doubled(teacher)
    keep = {name: torch.arange(size // 2) for name, size in plan_of(teacher).sets.items()}
    _, report = refitted(teacher, keep, RefitOptions(num_latents=16, ridge=1e-6))
    assert report.psnr_before < 40
    assert report.psnr_after > 70
    assert max(fit.after for fit in report.layers) < 1e-5


def test_magnitudes_take_up_the_scale() -> None:
    """What a layer gives has the mean square that the teacher's kept channels have, not that of all."""
    teacher = tiny(**SMALL)
    keep = half(teacher)
    narrow, _ = refitted(teacher, keep)
    outputs: list[torch.Tensor] = []
    for net in (teacher, narrow):
        layer = net.synthesis.get_submodule(net.synthesis.layer_names[1])
        layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    z = torch.randn([8, 8], generator=torch.Generator().manual_seed(1))
    teacher(z, None)
    narrow(z, None)
    energies = [float(x.square().mean()) for x in (outputs[0][:, keep["L1"]], outputs[1])]
    assert energies[1] == pytest.approx(energies[0], rel=0.4)
    assert float(narrow.synthesis.get_submodule(narrow.synthesis.layer_names[1]).magnitude_ema) != 1.3


def test_a_network_of_full_width_is_left_alone() -> None:
    teacher = tiny(**SMALL)
    keep = {name: torch.arange(size) for name, size in plan_of(teacher).sets.items()}
    narrow, report = refitted(teacher, keep)
    assert applies(teacher)
    assert report is None
    assert all(torch.equal(a, b) for a, b in zip(narrow.state_dict().values(), teacher.state_dict().values()))
