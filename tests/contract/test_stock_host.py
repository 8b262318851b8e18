"""Our snapshots in another code base: a separate process that has only the surface that their text may rely on."""
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dgl import prune
from dgl.architectures import plan_of
from tests.tiny import images, latents, tiny_discriminator, tiny_generator
from training.augment import AUGPIPE_PRESETS, AugmentPipe
from training.checkpoints import pickles

HOST = Path(__file__).parent / "stock_host"
TOLERANCE = 1e-5  # relative to the largest value: the host's operations sum in another order
SNAPSHOTS = ("stock", "resnet", "grey", "sliced", "by_layer")


def sliced(network: torch.nn.Module, widths: dict[str, int]) -> Any:
    """A student with the first channels of every set."""
    sets = plan_of(network).sets
    scores = {name: torch.arange(size).float() for name, size in sets.items()}
    return prune.slice_network(network, prune.choose(scores, {name: widths.get(name, sets[name]) for name in sets}))


def halves(network: torch.nn.Module, uneven: bool) -> Any:
    """Half of the channels everywhere, or, uneven, of every other set."""
    sets = plan_of(network).sets
    return sliced(network, {name: size // 2 for i, (name, size) in enumerate(sets.items()) if not uneven or i % 2})


def snapshot(name: str) -> dict[str, Any]:
    """G, D, G_ema and augment_pipe of a kind of snapshot."""
    kwargs = {"resnet": {"c_dim": 3, "architecture": "resnet"}, "grey": {"channels": 1, "architecture": "orig"}}
    size = {k: v for k, v in kwargs.get(name, {}).items() if k != "architecture"}
    options = {"conv_clamp": 2.0, "num_fp16_res": 1, "fp16_channels_last": True} if name == "stock" else {}
    G, G_ema = (tiny_generator(seed=s, **{**kwargs.get(name, {}), **options}) for s in (1, 2))
    D = tiny_discriminator("skip" if name == "grey" else "resnet", **size)
    if name in ("sliced", "by_layer"):
        G, G_ema, D = (halves(network, uneven=name == "by_layer") for network in (G, G_ema, D))
    pipe = AugmentPipe(**AUGPIPE_PRESETS["bgcfnc" if name == "resnet" else "bgcf"]) if name != "by_layer" else None
    return {"G": G, "D": D, "G_ema": G_ema, "augment_pipe": pipe}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the host has been at work with all snapshots."""
    folder = tmp_path_factory.mktemp("host")
    host = shutil.copytree(HOST, folder / "tree", ignore=shutil.ignore_patterns("__pycache__"))
    for name in SNAPSHOTS:
        nets = snapshot(name)
        pickles.save_networks(pickles.snapshot_data(nets, {"path": "x", "max_size": 3}), folder / f"{name}.pkl")
        z, c = latents(num=2, c_dim=nets["G"].c_dim)
        np.savez(folder / f"{name}.in.npz", z=z, c=c, img=images(num=2, channels=nets["G"].img_channels))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-B", str(host / "program.py"), str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def ours(nets: dict[str, Any], z: torch.Tensor, c: torch.Tensor, img: torch.Tensor) -> dict[str, torch.Tensor]:
    """The host's plain calls, made here."""
    G = nets["G_ema"]
    ws = G.mapping(z, c)
    collected = {
        "ws": ws,
        "ws_psi": G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=2),
        "img": G(z, c, truncation_psi=0.5, noise_mode="const"),
        "img_raw": nets["G"](z, c, noise_mode="none"),
        "synthesis": G.synthesis(ws, noise_mode="const"),
        "logits": nets["D"](img, c),
        "rebound": G.synthesis(ws, noise_mode="const"),
    }
    if nets["augment_pipe"] is not None:
        torch.manual_seed(0)
        collected["augmented"] = nets["augment_pipe"](img, debug_percentile=0.7)
    for value, buffer in enumerate(b for n, b in G.synthesis.named_buffers() if n.endswith("noise_const")):
        buffer.fill_(value / 10)
    return {**collected, "inverted": G.synthesis(ws, noise_mode="const")}


def assert_close(actual: np.ndarray, expected: torch.Tensor, name: str) -> None:
    assert actual.shape == tuple(expected.shape), name
    assert np.abs(actual - expected.numpy()).max() <= TOLERANCE * float(expected.abs().max()), name


@pytest.mark.parametrize("name", SNAPSHOTS)
@torch.no_grad()
def test_the_host_computes_what_we_compute(folder: Path, name: str) -> None:
    nets = snapshot(name)
    z, c = latents(num=2, c_dim=nets["G"].c_dim)
    expected = ours(nets, z, c, images(num=2, channels=nets["G"].img_channels))
    with np.load(folder / f"{name}.out.npz") as loaded:
        prefixes = ("", "rebuilt/", "copied/", "fp16/")
        alone = {"rebound", "inverted"}
        assert set(loaded) == {p + key for p in prefixes for key in expected if not p or key not in alone}
        for prefix in prefixes[:3]:
            for key, value in expected.items():
                if prefix + key in loaded:
                    assert_close(loaded[prefix + key], value, prefix + key)
        if name != "stock":  # its clamp is tighter than that of force_fp16
            for key in ("ws", "img", "synthesis", "logits"):
                assert_close(loaded[f"fp16/{key}"], expected[key], f"fp16/{key}")


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_what_the_host_writes_is_read_here(folder: Path, name: str) -> None:
    nets = snapshot(name)
    with open(folder / f"{name}.again", "rb") as f:
        again = pickles.load_networks(f)
    assert again["training_set_kwargs"] == {"path": "x", "max_size": 3}
    for role in ("G", "D", "G_ema"):
        have, want = again[role].state_dict(), nets[role].state_dict()
        assert list(have) == list(want)
        assert all(torch.equal(have[key], want[key]) for key in want)
    assert (again["augment_pipe"] is None) == (nets["augment_pipe"] is None)
    assert again["G"].init_kwargs.synthesis_kwargs.num_fp16_res == 4
    assert again["G"].synthesis.b8.use_fp16


def test_students_are_what_they_are_meant_to_be() -> None:
    assert "layer_channels" not in snapshot("sliced")["G"].init_kwargs.synthesis_kwargs
    uneven = snapshot("by_layer")
    assert len(set(uneven["G"].init_kwargs.synthesis_kwargs.layer_channels)) > 1
    assert len(set(uneven["D"].init_kwargs.layer_channels)) > 1
