"""style_mixing.py: its files, what they show, and its errors."""
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import style_mixing
from tests import tiny


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "rgb.pkl")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "grey.pkl", channels=1, c_dim=3)


def run(*args, **options):
    flags = [f"--{name}={value}" for name, value in {"rows": "1,2", "cols": "3-5", "device": "cpu", **options}.items()]
    return CliRunner().invoke(style_mixing.main, [*args, *flags])


def read(path):
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def by_hand(seed, col=None, layers=(), psi=1.0):
    """The image [H, W, 3] that NVIDIA's script would write, from the description of what it does."""
    G = tiny.tiny_networks()["G_ema"]
    ws = [G.mapping(torch.from_numpy(np.random.RandomState(s).randn(1, 16)), None) for s in (seed, col or seed)]
    row, column = (G.mapping.w_avg + psi * (w - G.mapping.w_avg) for w in ws)
    for layer in layers:
        row[:, layer] = column[:, layer]
    image = G.synthesis(row, noise_mode="const")[0].permute(1, 2, 0)
    return (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()


def assert_same_image(actual, expected):
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected).max() <= 1  # rounding of a batch of one and of many


def test_files_and_what_they_show(tmp_path, network):
    out = tmp_path / "new" / "out"
    result = run(network=network, outdir=out, styles="0-2,5", trunc=0.7)
    assert result.exit_code == 0, result.output
    singles = {f"{s}-{s}.png" for s in range(1, 6)}
    pairs = {f"{r}-{c}.png" for r in (1, 2) for c in (3, 4, 5)}
    assert {path.name for path in out.iterdir()} == singles | pairs | {"grid.png"}
    assert_same_image(read(out / "4-4.png"), by_hand(4, psi=0.7))
    assert_same_image(read(out / "2-5.png"), by_hand(2, 5, (0, 1, 2, 5), psi=0.7))
    grid = read(out / "grid.png")
    assert grid.shape == (3 * 16, 4 * 16, 3)
    assert not grid[:16, :16].any()
    np.testing.assert_array_equal(grid[:16, 16:32], read(out / "3-3.png"))
    np.testing.assert_array_equal(grid[32:, :16], read(out / "2-2.png"))
    np.testing.assert_array_equal(grid[16:32, 48:], read(out / "1-5.png"))


def test_a_seed_in_both_lists_is_itself(tmp_path, network):
    result = run(network=network, outdir=tmp_path, rows=4, cols=4, styles=0)
    assert result.exit_code == 0, result.output
    assert_same_image(read(tmp_path / "4-4.png"), by_hand(4))


def test_default_styles_end_with_the_network(tmp_path, network):
    result = run(network=network, outdir=tmp_path, rows=1, cols=3)  # 6 layers, 0-6 is the default
    assert result.exit_code == 0, result.output
    assert_same_image(read(tmp_path / "1-3.png"), by_hand(3))


def test_class_and_grey(tmp_path, conditional):
    for idx in (0, 2):
        result = run(network=conditional, outdir=tmp_path / str(idx), rows=1, cols=2, **{"class": idx})
        assert result.exit_code == 0, result.output
    first, third = (read(tmp_path / name / "1-1.png") for name in "02")
    assert first.shape == (16, 16)
    assert (first != third).any()


def test_class_of_an_unconditional_network_is_ignored(tmp_path, network):
    result = run(network=network, outdir=tmp_path, rows=1, cols=2, **{"class": 2})
    assert result.exit_code == 0
    assert "Warning: --class has no effect, this network knows no classes\n" in result.output


def test_noise_modes(tmp_path, network):
    for mode in ("const", "random", "none"):
        assert run(network=network, outdir=tmp_path / mode, rows=1, cols=2, **{"noise-mode": mode}).exit_code == 0
    images = {mode: read(tmp_path / mode / "1-2.png").astype(int) for mode in ("const", "random", "none")}
    assert all((images[a] != images[b]).any() for a, b in (("const", "random"), ("const", "none"), ("random", "none")))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"styles": "2-6"}, "Error: --styles: this network has layers 0 to 5, found 6"),
        ({"network": "/nowhere/net.pkl"}, "Error: --network: /nowhere/net.pkl: "),
        ({"outdir": "/proc/nowhere"}, "Error: --outdir: cannot write to '/proc/nowhere'"),
    ],
)
def test_errors(tmp_path, network, options, message):
    result = run(**{"network": network, "outdir": tmp_path / "out", **options})
    assert result.exit_code == 1
    assert result.output.startswith(message)
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_conditional_network_needs_a_class(tmp_path, conditional):
    result = run(network=conditional, outdir=tmp_path)
    assert result.exit_code == 1
    assert result.output == "Error: --class: give the class of the images, 0 to 2, or a label of 3 numbers\n"
    result = run(network=conditional, outdir=tmp_path, **{"class": 3})
    assert result.output == "Error: --class: this network has classes 0 to 2, found 3\n"


@pytest.mark.parametrize("missing", ["--rows", "--cols", "--network", "--outdir"])
def test_required_options(missing):
    flags = {"--rows": "1", "--cols": "2", "--network": "a.pkl", "--outdir": "out"}
    result = CliRunner().invoke(style_mixing.main, [f"{k}={v}" for k, v in flags.items() if k != missing])
    assert result.exit_code == 2
    assert f"Missing option '{missing}'" in result.output


def test_network_without_styles(tmp_path, monkeypatch):
    import training.checkpoints.pickles

    other = torch.nn.Linear(1, 1)
    monkeypatch.setattr(training.checkpoints.pickles, "open_networks", lambda *args, **kwargs: {"G_ema": other})
    result = run(network="big.pkl", outdir=tmp_path)
    assert result.output == "Error: --network: only style-based generators have styles to mix, this is a Linear\n"
