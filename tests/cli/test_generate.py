"""generate.py: which latents, which images, which files; and what it says to bad input."""
import itertools

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import generate
from dnnlib.cli import seed_latents
from tests import tiny
from tests.helpers import GOLDEN
from training.checkpoints.pickles import open_networks, save_networks


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "plain.pkl")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "conditional.pkl", channels=1, c_dim=3)


def run(*args, **options):
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {"device": "cpu", **options}.items()]
    return CliRunner().invoke(generate.main, [*args, *flags])


def pixels(path):
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def expected_image(network, seed, label=None, psi=1.0, noise_mode="const"):
    """The bytes that NVIDIA's script writes: float64 latents of NumPy's legacy generator, trunc(127.5 x + 128)."""
    G = open_networks(network)["G_ema"]
    z = torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim))
    c = None if label is None else torch.eye(G.c_dim)[[label]]
    image = G(z, c, truncation_psi=psi, noise_mode=noise_mode)[0]
    return (image.permute(1, 2, 0) * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy()


def assert_image(path, expected):
    actual = pixels(path)
    actual = actual[:, :, None] if actual.ndim == 2 else actual
    assert actual.shape == expected.shape
    assert np.abs(actual.astype(int) - expected).max() <= 1  # the last bit of a float may decide how a pixel is rounded


@pytest.mark.parametrize("seed", [0, 85, 2**32 - 1])
@pytest.mark.parametrize("z_dim", [16, 512])
def test_a_seed_gives_the_bits_of_nvidias_scripts(seed, z_dim):
    """Those are drawn in float64 as one row and become float32 in the network."""
    (actual,) = seed_latents([seed], z_dim)
    expected = torch.from_numpy(np.random.RandomState(seed).randn(1, z_dim)).to(torch.float32)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual.view(np.int32), expected[0].numpy().view(np.int32))


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_files_and_images_of_seeds(tmp_path, network, batch):
    out = tmp_path / "new" / "out"
    result = run(network=network, seeds="3,5-7", trunc=0.7, outdir=out, batch=batch)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [f"seed{s:04d}.png" for s in (3, 5, 6, 7)]
    for seed in (3, 5, 6, 7):
        assert_image(out / f"seed{seed:04d}.png", expected_image(network, seed, psi=0.7))


def test_a_run_directory_is_answered_with_its_newest_network(tmp_path):
    for number in (0, 200, 1000):
        (tmp_path / f"network-snapshot-{number:06d}.pkl").write_bytes(b"")
    result = CliRunner().invoke(generate.main, [f"--network={tmp_path}", "--seeds=1", f"--outdir={tmp_path}/out"])
    assert result.exit_code == 1
    assert result.output == (f"Error: --network: {tmp_path}: is a folder, expected a file; its newest network is "
                             f"{tmp_path}/network-snapshot-001000.pkl\n")


@pytest.mark.parametrize("name", ["ffhq64", "gray32", "sg3tree_sg2", "tf_config_f_64", "tf_ada_cond_32"])
def test_networks_of_other_code_bases(tmp_path, name):
    network = str(GOLDEN / f"{name}.pkl")
    label = {"class": 2} if open_networks(network)["G_ema"].c_dim else {}
    assert run(network=network, seeds="1", outdir=tmp_path, **label).exit_code == 0
    assert_image(tmp_path / "seed0001.png", expected_image(network, 1, label.get("class")))


def test_classes(tmp_path, conditional):
    for label in (0, 2):
        out = tmp_path / str(label)
        assert run(**{"network": conditional, "seeds": "4", "class": label, "outdir": out}).exit_code == 0
        assert_image(out / "seed0004.png", expected_image(conditional, 4, label))
    assert not np.array_equal(pixels(tmp_path / "0" / "seed0004.png"), pixels(tmp_path / "2" / "seed0004.png"))


def test_labels(tmp_path, conditional):
    """Classes can be mixed, and labels need not be one-hot."""
    label = torch.tensor([[0.25, 0.5, 0.75]])
    assert run(network=conditional, seeds="4", label="0.25,0.5,0.75", outdir=tmp_path).exit_code == 0
    G = open_networks(conditional)["G_ema"]
    z = torch.from_numpy(np.random.RandomState(4).randn(1, G.z_dim))
    image = G(z, label, noise_mode="const")[0].permute(1, 2, 0)
    assert_image(tmp_path / "seed0004.png", (image * 127.5 + 128).clamp(0, 255).to(torch.uint8).numpy())


def test_noise_modes(tmp_path, network):
    for mode in ("const", "none", "random"):
        assert run(network=network, seeds="1", noise_mode=mode, outdir=tmp_path / mode).exit_code == 0
    for mode in ("const", "none"):
        assert_image(tmp_path / mode / "seed0001.png", expected_image(network, 1, noise_mode=mode))
    images = [pixels(tmp_path / mode / "seed0001.png") for mode in ("const", "none", "random")]
    assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(images))


def test_projected_w(tmp_path, network):
    G = open_networks(network)["G_ema"]
    ws = G.mapping(tiny.latents(num=2)[0], None)
    np.savez(tmp_path / "w.npz", w=ws.numpy())
    result = run(network=network, projected_w=tmp_path / "w.npz", outdir=tmp_path / "out", seeds="1")
    assert result.exit_code == 0
    assert result.stderr == "Warning: --seeds has no effect, the images are those of --projected-w\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["proj00.png", "proj01.png"]
    expected = (G.synthesis(ws[1:], noise_mode="const")[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255)
    assert_image(tmp_path / "out" / "proj01.png", expected.to(torch.uint8).numpy())


def test_projected_w_of_other_projectors(tmp_path, network):
    G = open_networks(network)["G_ema"]
    ws = G.mapping(tiny.latents(num=1)[0], None)
    np.save(tmp_path / "w.npy", ws[0].numpy())
    result = run(network=network, projected_w=tmp_path / "w.npy", outdir=tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    expected = (G.synthesis(ws, noise_mode="const")[0].permute(1, 2, 0) * 127.5 + 128).clamp(0, 255)
    assert_image(tmp_path / "out" / "proj00.png", expected.to(torch.uint8).numpy())
    np.save(tmp_path / "w.npy", np.full([G.num_ws, G.w_dim], np.nan))
    result = run(network=network, projected_w=tmp_path / "w.npy", outdir=tmp_path / "out")
    assert result.stderr == f"Error: --projected-w: {tmp_path}/w.npy holds numbers that are not finite\n"


def test_a_class_nobody_needs(tmp_path, network):
    result = run(**{"network": network, "seeds": "1", "class": 3, "outdir": tmp_path})
    assert (result.exit_code, result.stderr) == (0, "Warning: --class has no effect, this network knows no classes\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "there is nothing to generate: pass --seeds or --projected-w"),
        ({"seeds": "1-"}, "Invalid value for '--seeds': expected numbers and ranges such as 1,3,5-8, found '1-'"),
        ({"seeds": "9-3"}, "Invalid value for '--seeds': a range goes upwards, found '9-3'"),
        ({"seeds": "1", "trunc": "x"}, "Invalid value for '--trunc': expected a finite number, found 'x'"),
        ({"seeds": "1", "noise_mode": "some"}, "Invalid value for '--noise-mode': 'some' is not one of 'const',"),
        ({"seeds": "1", "class": "-1"}, "Invalid value for '--class' / '--label': expected a class number"),
        ({"projected_w": "nothing.npz"}, "--projected-w: nothing.npz: cannot be read: No such file"),
        ({"projected_w": __file__}, f"--projected-w: {__file__}: cannot be read as NumPy arrays: the magic"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(options, message, network, tmp_path):
    result = run(network=network, outdir=tmp_path / "out", **options)
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "--class: give the class of the images, 0 to 2, or a label of 3 numbers"),
        (3, "--class: this network has classes 0 to 2, found 3"),
    ],
)
def test_classes_that_do_not_fit(label, message, conditional, tmp_path):
    options = {} if label is None else {"class": label}
    result = run(network=conditional, seeds="1", outdir=tmp_path / "out", **options)
    assert (result.exit_code, result.stderr) == (1, f"Error: {message}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [({"w": np.zeros([1, 3, 16])}, r"has [1, 3, 16]"), ({"v": np.zeros(1)}, "holds no array 'w'")],
)
def test_arrays_that_do_not_fit(arrays, reason, network, tmp_path):
    np.savez(tmp_path / "w.npz", **arrays)
    result = run(network=network, projected_w=tmp_path / "w.npz", outdir=tmp_path / "out")
    assert result.exit_code == 1
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_ranges_of_classes_and_a_table(tmp_path, conditional):
    result = run(network=conditional, seeds="1-4", outdir=tmp_path, **{"class": "0-2", "format": "webp"}, batch=3,
                 trunc=0.5)
    assert result.exit_code == 0, result.output
    names = [f"class{c}-seed000{seed}.webp" for c in range(3) for seed in range(1, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    single = run("--grid", network=conditional, seeds="2,3", outdir=tmp_path / "one", trunc=0.5, **{"class": 1})
    assert single.exit_code == 0, single.output
    images = [pixels(tmp_path / "one" / f"seed000{seed}.png") for seed in (2, 3)]
    for seed, image in zip((2, 3), images):
        shown = np.asarray(PIL.Image.open(tmp_path / f"class1-seed000{seed}.webp").convert("L"))
        np.testing.assert_array_equal(shown, image)
    np.testing.assert_array_equal(pixels(tmp_path / "one" / "grid.png"), np.hstack(images))


def test_a_grid_has_a_row_per_class_or_is_square(tmp_path, conditional, network):
    assert run("--grid", network=conditional, seeds="1-4", outdir=tmp_path, **{"class": "1-2"}).exit_code == 0
    rows = [[pixels(tmp_path / f"class{c}-seed000{seed}.png") for seed in range(1, 5)] for c in (1, 2)]
    np.testing.assert_array_equal(pixels(tmp_path / "grid.png"), np.vstack([np.hstack(row) for row in rows]))
    assert run("--grid", network=network, seeds="1-3", outdir=tmp_path / "b", format="jpg").exit_code == 0
    table = np.asarray(PIL.Image.open(tmp_path / "b" / "grid.jpg"))
    assert table.shape == (32, 32, 3)
    assert table[16:, 16:].max() < 30


@pytest.mark.parametrize(("label", "message"), [
    ("2-1", "a range goes upwards, found '2-1'"),
    ("1-3", "this network has classes 0 to 2, found 3"),
])
def test_ranges_that_do_not_fit(label, message, tmp_path, conditional):
    result = run(network=conditional, seeds="1", outdir=tmp_path, **{"class": label})
    assert result.exit_code != 0
    assert message in result.output
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_named(network, tmp_path):
    data = open_networks(network)
    data["G_ema"].synthesis.b8.conv1.weight.data[0, 0] = float("nan")
    save_networks(data, tmp_path / "nan.pkl")
    result = run(network=tmp_path / "nan.pkl", seeds="1", outdir=tmp_path / "out")
    assert result.stderr == (f"Error: --network: {tmp_path}/nan.pkl: G_ema: synthesis.b8.conv1.weight holds numbers "
                             "that are not finite; the training diverged, use an earlier snapshot\n")
