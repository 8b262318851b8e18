"""Which channels of a network can influence its output at all."""
from collections.abc import Callable

import torch

from .plan import Consumer, Plan


def by_channel(tensor: torch.Tensor, plan: Plan, set_name: str, consumer: Consumer) -> torch.Tensor:
    """A tensor of the shape of a consumer's weight, arranged by the channel that is read: [O, C, everything else]."""
    axis = plan.rules[f"{consumer.layer}.weight"].axes[consumer.axis]
    read = tensor.transpose(1, consumer.axis) if consumer.axis != 1 else tensor
    used = read[:, : read.shape[1] - axis.extra]
    return used.reshape(read.shape[0], plan.sets[set_name], -1)


def reading_weight(network: torch.nn.Module, plan: Plan, set_name: str, consumer: Consumer) -> torch.Tensor:
    """The weights of a consumer arranged by the channel they read: [O, C, everything else]."""
    return by_channel(network.get_parameter(f"{consumer.layer}.weight"), plan, set_name, consumer)


@torch.no_grad()
def reachable(
    network: torch.nn.Module, plan: Plan, applied: Callable[[str, torch.Tensor], torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Set name → bool [C]: whether a chain of non-zero weights leads from the channel to the output.

    Sets may feed each other in a circle, as behind shortcuts: what reaches the output grows until nothing is added.

    Args:
        network: whose weights to look at.
        plan: the network's.
        applied: what an estimate of weights as layers apply them gives (`dgl.plan.Applied`): a channel that a layer
            always multiplies by a style of 0, say, is then not read by it.
    """

    def used(name: str, consumer: Consumer) -> torch.Tensor:
        """[O, C], whether an output channel reads a channel of the set."""
        magnitude = reading_weight(network, plan, name, consumer).double().abs().sum(dim=2)
        reads = magnitude.ne(0)
        return (reads if applied is None else reads & applied(consumer.layer, magnitude).ne(0)).cpu()

    links = [
        (name, consumer.output, used(name, consumer))
        for name in reversed(plan.sets)  # consumers before producers, so that once around is mostly enough
        for consumer in plan.consumers[name]
    ]
    reached = {name: torch.zeros([size], dtype=torch.bool) for name, size in plan.sets.items()}
    grows = True
    while grows:
        before = sum(int(reaches.sum()) for reaches in reached.values())
        for name, output, reads in links:
            reached[name] |= (reads if output is None else reads & reached[output][:, None]).any(dim=0)
        grows = sum(int(reaches.sum()) for reaches in reached.values()) > before
    return reached
