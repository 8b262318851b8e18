"""Multiply-accumulates (MACs): the counts of one layer. Each family counts its own in `dgl/architectures/`."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class LayerCost:
    """Multiply-accumulates of one layer for one image, by two conventions.

    Attributes:
        macs_in: an up-convolution is counted at its input resolution, as it is computed (and as papers on pruning do).
        macs_out: every convolution is counted at its output resolution.
    """

    layer: str
    macs_in: int
    macs_out: int
