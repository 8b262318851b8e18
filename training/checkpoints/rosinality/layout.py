"""Names, order and shapes of the tensors in rosinality's layout, and their names in our networks."""
import torch

from .. import widths

ROLES = {"G": "g", "D": "d", "G_ema": "g_ema"}  # our role → key of the file
KEYS = (*ROLES.values(), "latent_avg", "state_dict")  # of files; optimizers and options beside them are not read
_TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
KERNEL = torch.outer(_TAPS, _TAPS) / 64  # [4, 4]; of the discriminator, and four times that of the generator

Table = dict[str, tuple[str, tuple[int, ...]]]  # name there → name here, and the axes of size one that it has in front


def _modulated(there: str, here: str, upsampling: bool) -> Table:
    """A convolution layer of the generator. Kernels have no tensor here."""
    return {
        f"{there}.conv.weight": (f"{here}.weight", (1,)),
        **({f"{there}.conv.blur.kernel": ("", ())} if upsampling else {}),
        f"{there}.conv.modulation.weight": (f"{here}.affine.weight", ()),
        f"{there}.conv.modulation.bias": (f"{here}.affine.bias", ()),
        f"{there}.noise.weight": (f"{here}.noise_strength", (1,)),
        f"{there}.activate.bias": (f"{here}.bias", ()),
    }


def _to_rgb(there: str, here: str, upsampling: bool) -> Table:
    return {
        f"{there}.bias": (f"{here}.bias", (1,)),
        **({f"{there}.upsample.kernel": ("", ())} if upsampling else {}),
        f"{there}.conv.weight": (f"{here}.weight", (1,)),
        f"{there}.conv.modulation.weight": (f"{here}.affine.weight", ()),
        f"{there}.conv.modulation.bias": (f"{here}.affine.bias", ()),
    }


def generator_table(resolution: int, num_layers: int) -> Table:
    """The names of a generator's tensors, in the order of its state dict."""
    upper = widths.block_resolutions(resolution)[1:]
    table: Table = {}
    for i in range(num_layers):
        for name in ("weight", "bias"):
            table[f"style.{i + 1}.{name}"] = (f"mapping.fc{i}.{name}", ())
    table["input.input"] = ("synthesis.b4.const", (1,))
    table |= _modulated("conv1", "synthesis.b4.conv1", upsampling=False)
    table |= _to_rgb("to_rgb1", "synthesis.b4.torgb", upsampling=False)
    for j, res in enumerate(upper):
        table |= _modulated(f"convs.{2 * j}", f"synthesis.b{res}.conv0", upsampling=True)
        table |= _modulated(f"convs.{2 * j + 1}", f"synthesis.b{res}.conv1", upsampling=False)
    for j, res in enumerate(upper):
        table |= _to_rgb(f"to_rgbs.{j}", f"synthesis.b{res}.torgb", upsampling=True)
    layers = ["b4.conv1", *(f"b{res}.{conv}" for res in upper for conv in ("conv0", "conv1"))]
    for n, layer in enumerate(layers):
        table[f"noises.noise_{n}"] = (f"synthesis.{layer}.noise_const", (1, 1))
    return table


def discriminator_table(resolution: int) -> Table:
    """The names of a discriminator's tensors, in the order of its state dict."""
    top = f"b{resolution}.fromrgb"
    table: Table = {"convs.0.0.weight": (f"{top}.weight", ()), "convs.0.1.bias": (f"{top}.bias", ())}
    for i, res in enumerate(widths.block_resolutions(resolution)[:0:-1], start=1):
        there, here = f"convs.{i}", f"b{res}"
        table |= {
            f"{there}.conv1.0.weight": (f"{here}.conv0.weight", ()),
            f"{there}.conv1.1.bias": (f"{here}.conv0.bias", ()),
            f"{there}.conv2.0.kernel": ("", ()),
            f"{there}.conv2.1.weight": (f"{here}.conv1.weight", ()),
            f"{there}.conv2.2.bias": (f"{here}.conv1.bias", ()),
            f"{there}.skip.0.kernel": ("", ()),
            f"{there}.skip.1.weight": (f"{here}.skip.weight", ()),
        }
    table |= {"final_conv.0.weight": ("b4.conv.weight", ()), "final_conv.1.bias": ("b4.conv.bias", ())}
    for i, layer in enumerate(("fc", "out")):
        for name in ("weight", "bias"):
            table[f"final_linear.{i}.{name}"] = (f"b4.{layer}.{name}", ())
    return table


def shape_there(target: torch.Tensor, front: tuple[int, ...]) -> list[int]:
    """The shape of a tensor in a file: further axes in front, and behind the bias of an RGB layer.

    Args:
        target: our tensor, of any shape [...].
        front: the axes in front, as in a `Table`.
    """
    is_rgb_bias = front == (1,) and target.ndim == 1
    return [*front, *target.shape, *((1, 1) if is_rgb_bias else ())]
