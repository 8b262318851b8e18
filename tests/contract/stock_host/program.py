"""What tools of other code bases do with a network pickle; run with this folder as the only source of packages.

Usage: program.py FOLDER. Reads every FOLDER/*.pkl with FOLDER/*.in.npz, writes *.out.npz and *.again.
"""
import copy
import io
import pickle
import sys
import types
from pathlib import Path

import foreign_forward
import numpy as np
import torch

import dnnlib
from torch_utils import misc


def run_networks(nets, z, c, img):
    """Plain calls."""
    G, D = nets["G_ema"], nets["D"]
    ws = G.mapping(z, c)
    collected = {
        "ws": ws,
        "ws_psi": G.mapping(z=z, c=c, truncation_psi=0.7, truncation_cutoff=2),
        "img": G(z, c, truncation_psi=0.5, noise_mode="const", force_fp32=True),
        "img_raw": nets["G"](z=z, c=c, noise_mode="none"),
        "synthesis": G.synthesis(ws, noise_mode="const"),
        "logits": D(img, c),
    }
    if nets["augment_pipe"] is not None:
        torch.manual_seed(0)  # of the noise
        collected["augmented"] = nets["augment_pipe"](img, debug_percentile=0.7)
    return collected


def invert(G, z, c):
    """An inversion tool: noise images and weights are optimized."""
    G = copy.deepcopy(G).eval().requires_grad_(False).float()
    ws = G.mapping(z.double(), c if G.c_dim else None)
    assert ws.shape[1] == G.mapping.num_ws
    noise = {name: buffer for name, buffer in G.synthesis.named_buffers() if "noise_const" in name}
    for value, buffer in enumerate(noise.values()):
        buffer[:] = torch.full_like(buffer, value / 10)
        buffer.requires_grad = True
    ws = ws.detach().requires_grad_(True)
    img = G.synthesis(ws, noise_mode="const", force_fp32=True)
    img.square().sum().backward()
    assert all(buffer.grad is not None and buffer.grad.abs().sum() > 0 for buffer in noise.values())
    assert ws.grad is not None
    G.requires_grad_(True)
    G.synthesis(ws, noise_mode="const", force_fp32=True).sum().backward()
    assert all(p.grad is not None for p in G.synthesis.parameters())
    buffer = io.BytesIO()
    torch.save(G, buffer)
    buffer.seek(0)
    again = torch.load(buffer, weights_only=False)
    return {"inverted": again.synthesis(ws, noise_mode="const", force_fp32=True)}


def rebind(G, z, c):
    """An editing tool: its own forward functions take the place of the network's."""
    G = copy.deepcopy(G)
    for part in G.synthesis.modules():
        kind = type(part).__name__
        if kind in foreign_forward.FUNCTIONS:
            part.forward = types.MethodType(foreign_forward.FUNCTIONS[kind], part)
            part.name = "written by a tool"
    return {"rebound": G.synthesis(G.mapping(z, c), noise_mode="const")}


def walk(nets):
    """Every attribute that tools read must be there."""
    G = nets["G_ema"]
    for name in ("z_dim", "c_dim", "w_dim", "num_ws", "img_resolution", "img_channels"):
        assert isinstance(getattr(G, name), int), name
    assert not hasattr(G.synthesis, "input")
    assert G.mapping.w_avg.shape == (G.w_dim,)
    assert G.mapping.num_ws == G.synthesis.num_ws == G.num_ws
    assert [f"b{res}" for res in G.synthesis.block_resolutions] == [name for name, _ in G.synthesis.named_children()]
    plain = (bool, int, float, str, type(None))
    for res in G.synthesis.block_resolutions:
        block = getattr(G.synthesis, f"b{res}")
        for name in ("in_channels", "w_dim", "resolution", "img_channels", "is_last", "architecture", "use_fp16",
                     "channels_last", "num_conv", "num_torgb", "training"):  # fmt: skip
            assert type(getattr(block, name)) in plain, name
        assert (block.in_channels == 0) == hasattr(block, "const")
        layers = [getattr(block, name) for name in ("conv0", "conv1") if hasattr(block, name)]
        assert len(layers) == block.num_conv
        for layer in layers:
            for name in ("resolution", "up", "use_noise", "activation", "conv_clamp", "padding", "act_gain"):
                assert type(getattr(layer, name)) in plain, name
            assert layer.affine.weight.shape == (layer.weight.shape[1], block.w_dim)
            assert layer.noise_const.shape == (res, res)
            assert layer.noise_strength.shape == ()
            assert layer.resample_filter.ndim == 2
        if block.num_torgb:
            assert type(block.torgb.weight_gain) is float
            assert block.torgb.affine.weight.shape[1] == block.w_dim
    for module in (G, nets["D"]):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        assert all(t.device.type == "cpu" and t.dtype == torch.float32 for t in module.state_dict().values())


def force_fp16(name, old):
    """The option of the loaders of this family."""
    kwargs = copy.deepcopy(old.init_kwargs)
    target = kwargs
    if name.startswith("G"):
        target = kwargs.synthesis_kwargs = dnnlib.EasyDict(kwargs.get("synthesis_kwargs", {}))
    target.num_fp16_res = 4
    target.conv_clamp = 256
    assert kwargs != old.init_kwargs
    new = type(old)(**kwargs).eval().requires_grad_(False)
    misc.copy_params_and_buffers(old, new, require_all=True)
    return new


def rebuild(old):
    """From the recorded arguments, then a strict copy of the state."""
    new = type(old)(*old.init_args, **old.init_kwargs).eval().requires_grad_(False)
    new.load_state_dict(old.state_dict(), strict=True)
    return new


def work_with(path):
    """All uses of one file."""
    with open(path, "rb") as f:
        nets = pickle.load(f)
    with np.load(path.with_suffix(".in.npz")) as data:
        z, c, img = (torch.from_numpy(data[key]) for key in ("z", "c", "img"))
    walk(nets)
    roles = ("G", "D", "G_ema")
    with torch.no_grad():
        result = run_networks(nets, z, c, img)
        result.update(rebind(nets["G_ema"], z, c))
        halved = {**nets, **{role: force_fp16(role, nets[role]) for role in roles}}
        rebuilt = {**nets, **{role: rebuild(nets[role]) for role in roles}}
        result.update({f"fp16/{key}": value for key, value in run_networks(halved, z, c, img).items()})
        result.update({f"rebuilt/{key}": value for key, value in run_networks(rebuilt, z, c, img).items()})
        result.update({f"copied/{key}": v for key, v in run_networks(copy.deepcopy(nets), z, c, img).items()})
    result.update(invert(nets["G_ema"], z, c))
    np.savez(path.with_suffix(".out.npz"), **{key: value.detach().numpy() for key, value in result.items()})
    with open(path.with_suffix(".again"), "wb") as f:
        pickle.dump({**nets, "G": halved["G"]}, f)


def main():
    """Checks that the packages are this folder's, then works with every file."""
    here = Path(__file__).parent
    for module in (dnnlib, misc):
        assert here in Path(module.__file__).parents
    try:
        import training  # noqa: F401
    except ImportError:
        pass
    else:
        raise AssertionError("this host must not see the code base that wrote the pickles")
    torch.manual_seed(0)
    for path in sorted(Path(sys.argv[1]).glob("*.pkl")):
        work_with(path)


if __name__ == "__main__":
    main()
