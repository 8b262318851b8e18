"""Which channels of a network can influence its output at all."""
import torch

from .plan import Consumer, Plan


def reading_weight(network: torch.nn.Module, plan: Plan, set_name: str, consumer: Consumer) -> torch.Tensor:
    """The weights of a consumer arranged by the channel they read: [O, C, everything else]."""
    weight = network.get_parameter(f"{consumer.layer}.weight")
    axis = plan.rules[f"{consumer.layer}.weight"].axes[1]
    used = weight[:, : weight.shape[1] - axis.extra]
    return used.reshape(weight.shape[0], plan.sets[set_name], -1)


@torch.no_grad()
def reachable(network: torch.nn.Module, plan: Plan) -> dict[str, torch.Tensor]:
    """Set name → bool [C]: whether a chain of non-zero weights leads from the channel to the output."""
    found: dict[str, torch.Tensor] = {}
    for name in reversed(plan.sets):  # consumers before producers
        reaches = torch.zeros([plan.sets[name]], dtype=torch.bool)
        for consumer in plan.consumers[name]:
            used = reading_weight(network, plan, name, consumer).ne(0).any(dim=2).cpu()  # [O, C]
            if consumer.output is not None:
                used = used & found[consumer.output][:, None]
            reaches |= used.any(dim=0)
        found[name] = reaches
    return found
