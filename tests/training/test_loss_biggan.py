"""The hinge loss: its numbers, whom they move, and how it joins the training loop."""
import dataclasses
from typing import Any

import pytest
import torch

from tests import tiny_biggan
from tests.tiny import split_phase
from training.biggan.loss import HingeLoss
from training.loss import Loss, Part, Step

DEVICE = torch.device("cpu")


class Scale(torch.nn.Module):
    """G(z) = weight · z as an image of one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, z: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        return (self.weight * z)[:, :, None, None]


class Score(torch.nn.Module):
    """D(x, c) = weight · x + c; remembers what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))
        self.calls: list[torch.Tensor] = []

    def forward(self, img: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        self.calls.append(img)
        return self.weight * img[:, :, 0, 0] + c


def batch(**changes: Any) -> Step:
    """Fakes 0.5 and -3, reals 0.25 and 4, labels 0 but for one."""
    def column(*values: float) -> torch.Tensor:
        return torch.tensor(values)[:, None]

    step = Step(real_img=column(0.25, 4.0)[:, :, None, None], real_c=column(0.0, 0.0), gen_z=column(0.5, -3.0),
                gen_c=column(0.0, 0.125), gain=1, cur_nimg=0)
    return dataclasses.replace(step, **changes)


def nets() -> tuple[Any, Any]:
    return Scale().requires_grad_(False), Score().requires_grad_(False)


def gradient(loss: Loss, phase: str, network: Any, **changes: Any) -> float:
    network.requires_grad_(True)
    network.weight.grad = None
    loss.accumulate_gradients(*split_phase(phase), batch(**changes))
    network.requires_grad_(False)
    return network.weight.grad.item()


def test_the_discriminator_minimises_the_hinge() -> None:
    """max(0, 1 + w·0.5) and max(0, 1 - 3w + 0.125): only the first has a slope, 0.5. max(0, 1 - w·0.25) and
    max(0, 1 - 4w): only the first, -0.25. Means over two: 0.25 - 0.125.
    """
    G, D = nets()
    loss = HingeLoss(DEVICE, G, D)
    assert gradient(loss, "Dboth", D) == 0.125
    assert gradient(loss, "Dboth", D, gain=2) == 0.25
    assert [tuple(call.shape) for call in D.calls] == [(4, 1, 1, 1)] * 2, "one pass for generated and real images"
    assert D.calls[0].flatten().tolist() == [0.5, -3, 0.25, 4]
    assert G.weight.grad is None


def test_the_generator_minimises_the_negative_score() -> None:
    """-mean(w_D · w_G · z) over z = 0.5 and -3 has the slope 1.25 in w_G; labels shift the score only."""
    G, D = nets()
    loss = HingeLoss(DEVICE, G, D)
    assert gradient(loss, "Gboth", G) == 1.25
    assert D.weight.grad is None


def test_augmentation_is_for_all_that_the_discriminator_sees() -> None:
    G, D = nets()
    loss = HingeLoss(DEVICE, G, D, augment_pipe=lambda img: img + 10)  # type: ignore[arg-type]
    loss.accumulate_gradients("G", Part.BOTH, batch(gen_z=torch.ones([2, 1], requires_grad=True)))
    gradient(loss, "Dboth", D)
    assert D.calls[0].flatten().tolist() == [11, 11]
    assert D.calls[1].flatten().tolist() == [10.5, 7, 10.25, 14]


def test_terms_are_added_per_sample() -> None:
    class Double:
        name = "double"

        def __call__(self, batch: Any) -> torch.Tensor:
            assert batch.ws.shape == (2, 0, 0)
            return batch.img[:, 0, 0, 0] * 2

    G, D = nets()
    assert gradient(HingeLoss(DEVICE, G, D, g_terms=[Double()]), "Gboth", G) == 1.25 - 2.5
    constant = {"class_name": "tests.tiny.ConstantTerm", "value": 7.0}
    assert gradient(HingeLoss(DEVICE, G, D, g_terms=[constant]), "Gboth", G) == 1.25
    Double.__call__ = lambda self, batch: batch.img  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"loss term 'double': expected a per-sample loss of shape \(2,\), found"):
        gradient(HingeLoss(DEVICE, G, D, g_terms=[Double()]), "Gboth", G)


def test_unknown_phases_are_named() -> None:
    with pytest.raises(ValueError, match="unknown training phase 'Greg'"):
        HingeLoss(DEVICE, *nets()).accumulate_gradients("G", Part.REG, batch())


def test_estimates_move_in_both_phases() -> None:
    """In training mode batch statistics and singular vectors of G, and the vectors of D, move in every phase."""
    G, D = tiny_biggan.tiny_generator().train(), tiny_biggan.tiny_discriminator().train()
    loss = HingeLoss(DEVICE, G, D)
    z, c = tiny_biggan.inputs(G)
    labels = torch.nn.functional.one_hot(c, 3).float()
    img, _ = tiny_biggan.inputs(D)
    for phase, trained in (("Gboth", G), ("Dboth", D)):
        before = {**G.state_dict(prefix="G."), **D.state_dict(prefix="D.")}
        before = {name: tensor.clone() for name, tensor in before.items()}
        trained.requires_grad_(True)
        loss.accumulate_gradients(*split_phase(phase), Step(img, labels, z, labels, gain=1, cur_nimg=0))
        trained.requires_grad_(False)
        now = {**G.state_dict(prefix="G."), **D.state_dict(prefix="D.")}
        moved = {name for name in now if not torch.equal(now[name], before[name])}
        assert {name.rpartition(".")[2] for name in moved} == {"u0", "sv0", "stored_mean", "stored_var"}
        assert {name for name in now if name.endswith(("stored_mean", "conv1.u0", "conv2.u0"))} <= moved
    assert all(p.grad is not None for p in D.parameters())
