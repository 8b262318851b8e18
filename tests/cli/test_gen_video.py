"""gen_video.py: frames are the images of latents on closed paths through the keyframes."""
import builtins
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import gen_video
from dnnlib.cli import seed_latents
from dnnlib.errors import UserError
from tests import tiny, tiny_biggan
from training.checkpoints.pickles import open_networks
from training.data import video
from training.data.images import truncated


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "net.pkl")


def run(*args: str, **options: object) -> Any:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {"device": "cpu", **options}.items()]
    return CliRunner().invoke(gen_video.main, [*args, *flags])


def frames(path: Path) -> list[np.ndarray]:
    with PIL.Image.open(path) as picture:
        collected = []
        for i in range(getattr(picture, "n_frames", 1)):
            picture.seek(i)
            collected.append(np.asarray(picture.convert("RGB")))
        return collected


def image(network: str, seed: int, psi: float = 1) -> np.ndarray:
    G = open_networks(network)["G_ema"]
    z = torch.from_numpy(seed_latents([seed], G.z_dim))
    return truncated(G(z, None, truncation_psi=psi, noise_mode="const"))[0]


def test_keyframes_are_the_images_of_their_seeds(network: str, tmp_path: Path) -> None:
    path = tmp_path / "walk.webp"
    result = run(network=network, seeds="3,4,5", w_frames=4, trunc=0.7, output=path)
    assert result.exit_code == 0, result.output
    assert [item.name for item in tmp_path.iterdir()] == ["walk.webp"]
    actual = frames(path)
    assert len(actual) == 12
    for i, seed in enumerate((3, 4, 5)):
        np.testing.assert_array_equal(actual[4 * i], image(network, seed, 0.7))
    steps = [np.abs(a.astype(int) - b).mean() for a, b in zip(actual, [*actual[1:], actual[0]])]
    assert 0 < min(steps)
    assert max(steps) < 40


def test_a_grid_deals_out_the_seeds(network: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.gif"
    result = run(network=network, seeds="0-7", grid="2x1", w_frames=2, fps=10, output=path)
    assert result.exit_code == 0, result.output
    actual = frames(path)
    assert (len(actual), actual[0].shape) == (8, (16, 32, 3))
    expected = np.hstack([image(network, 1), image(network, 5)])
    assert np.abs(actual[2].astype(int) - expected).mean() < 8  # 256 colours
    with PIL.Image.open(path) as picture:
        assert picture.info["duration"] == 100


def test_w_of_a_file(network: str, tmp_path: Path) -> None:
    G = open_networks(network)["G_ema"]
    ws = G.mapping(torch.from_numpy(seed_latents([1, 2], G.z_dim)), None)
    np.savez(tmp_path / "w.npz", w=ws.numpy())
    result = run(network=network, w=tmp_path / "w.npz", w_frames=3, output=tmp_path / "w.webp")
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(frames(tmp_path / "w.webp")[3], image(network, 2))


def test_a_network_without_w(tmp_path: Path) -> None:
    network = tiny_biggan.write_teacher(tmp_path / "big.pkl")
    output = tmp_path / "big.webp"
    result = run(network=network, seeds="1,2", w_frames=2, trunc=0.5, output=output, **{"class": 1})
    assert result.exit_code == 0, result.output
    G = open_networks(network)["G_ema"]
    z = torch.from_numpy(seed_latents([2], G.z_dim))
    np.testing.assert_array_equal(frames(output)[2], truncated(G(z, torch.eye(3)[[1]], truncation_psi=0.5))[0])


def test_mp4(network: str, tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="the extra [video] is not installed")
    result = run(network=network, seeds="0-1", w_frames=3, output=tmp_path / "walk.mp4")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "walk.mp4").read_bytes()[4:8] == b"ftyp"


def test_an_mp4_without_ffmpeg(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "imageio_ffmpeg":
            raise ModuleNotFoundError("No module named 'imageio_ffmpeg'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    result = run(network=network, seeds="0", output=tmp_path / "walk.mp4")
    assert result.exit_code == 1
    assert result.output.startswith("Error: --output: an mp4 needs imageio-ffmpeg (the extra [video]: pip install")
    assert ".gif and .webp need nothing" in result.output


@pytest.mark.parametrize(("options", "message"), [
    ({}, "give the keyframes: either --seeds or --w"),
    ({"seeds": "1", "w": "w.npz"}, "give the keyframes: either --seeds or --w"),
    ({"w": "w.npz", "num_keyframes": 2}, "--num-keyframes and --shuffle-seed go with --seeds"),
    ({"w": "w.npz", "grid": "2x2"}, "--grid: w goes with one image; leave out the grid"),
    ({"w": "none.npz"}, "--w: "),
    ({"seeds": "1-3", "grid": "2x1"}, "--seeds: expected a multiple of the grid's 2 cells, found 3; or give "
                                      "--num-keyframes"),
    ({"seeds": "1", "grid": "0x1"}, "expected columns and rows such as 4x2, each from 1 to 99, found '0x1'"),
    ({"seeds": "1", "output": "walk.avi"}, "--output: expected a name that ends in .mp4, .gif or .webp, found walk.a"),
    ({"seeds": "1", "output": "no/walk.gif"}, "--output: no/walk.gif: there is no folder "),
])
def test_bad_input(
    options: dict[str, Any], message: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(**{"network": network, "output": "walk.gif", **options})
    assert result.exit_code != 0
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_paths_are_closed_and_smooth() -> None:
    keyframes = np.random.RandomState(0).randn(4, 3)
    path = video.closed_path(keyframes, 50)
    assert path.shape == (200, 3)
    np.testing.assert_allclose(path[::50], keyframes, rtol=1e-6)
    around = np.concatenate([path, path[:2]])
    assert np.abs(np.diff(around, 2, axis=0)).max() < 0.02
    assert np.ptp(video.closed_path(keyframes[:1], 5), axis=0).max() == 0


def test_seeds_are_used_again_and_shuffled() -> None:
    assert video.grid_keyframes([1, 2, 3], 2, 2, None).tolist() == [[1, 2], [3, 1]]
    shuffled = video.grid_keyframes(list(range(8)), 2, None, 1)
    assert sorted(shuffled.ravel().tolist()) == list(range(8))
    assert shuffled.tolist() != [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(UserError, match="seeds: expected a multiple"):
        video.grid_keyframes([1], 2, None, None)
