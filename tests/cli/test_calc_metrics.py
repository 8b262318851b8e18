import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import calc_metrics
import dnnlib
from dnnlib.errors import UrlError, UserError
from metrics import torchscript
from metrics.frechet_inception_distance import frechet_distance
from tests.helpers import GOLDEN, random_images, write_images
from training.data.dataset import ImageFolderDataset

ROOT = Path(calc_metrics.__file__).parent
DETECTOR = ROOT / "metrics" / "detectors" / "clothing32.pt"
GREY = GOLDEN / "gray32.pkl"
CONDITIONAL = GOLDEN / "cifar32.pkl"
URL = "https://example.com/network.pkl"


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(dnnlib.urls, "_cache_dir", str(tmp_path / "cache"))


@pytest.fixture
def grey_data(tmp_path):
    return write_images(tmp_path / "grey", random_images(12, side=32, num_channels=1))


def run(*args, expect=0):
    args = [f"--detector={DETECTOR}", "--num-gen=16", "--device=cpu", *map(str, args)]
    result = CliRunner().invoke(calc_metrics.main, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == expect, result.output
    return result


def rows(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def error_line(result):
    """The one line that says what is wrong; click puts its usage above it."""
    *_, last = result.stderr.splitlines()
    assert last.startswith("Error: ")
    return last


def test_results_go_to_stdout(grey_data):
    result = run(f"--network={GREY}", "--metrics=fid50k_full,pr50k3_full", f"--data={grey_data}")
    first, second = rows(result)
    assert list(first["results"]) == ["fd@clothing32"]
    assert list(second["results"]) == ["precision@clothing32", "recall@clothing32"]
    assert not first["comparable"]
    assert first["protocol"]["num_gen"] == 16
    assert first["protocol"]["num_real"] == 12
    assert first["snapshot_pkl"] == str(GREY)
    assert f"network: {GREY}" in result.stderr
    assert not (GOLDEN / "metric-fid50k_full.jsonl").exists()


def test_quiet(grey_data):
    assert run(f"--network={GREY}", f"--data={grey_data}", "--verbose=false").stderr == ""


def test_mirror_seed_and_batch(grey_data):
    options = ["--mirror=true", "--seed=3", "--batch-gen=5", "--no-cache", "--num-real=20"]
    (row,) = rows(run(f"--network={GREY}", "--metrics=fid50k", f"--data={grey_data}", *options))
    assert row["protocol"]["real_set"]["xflip"] is True
    assert [row["protocol"][key] for key in ("num_real", "seed", "batch_gen")] == [20, 3, 5]


def test_conditional_network(tmp_path):
    data = write_images(tmp_path / "labelled", random_images(20, side=32), labels=[i % 10 for i in range(20)])
    (row,) = rows(run(f"--network={CONDITIONAL}", "--metrics=is50k", f"--data={data}"))
    assert row["results"]["is@clothing32_mean"] >= 1


def test_conditional_network_needs_labels(tmp_path):
    data = write_images(tmp_path / "unlabelled", random_images(20, side=32))
    result = run(f"--network={CONDITIONAL}", "--metrics=is50k", f"--data={data}", expect=1)
    assert error_line(result) == "Error: metrics: the network takes labels of 10 numbers, the data set has labels of 0"


def test_run_folder(tmp_path, grey_data):
    """Every snapshot in order, nothing else, and the rows are kept beside them."""
    folder = tmp_path / "00000-grey"
    folder.mkdir()
    for name in ("network-snapshot-000002.pkl", "network-snapshot-000001.pkl", "other.pkl"):
        shutil.copy(GREY, folder / name)
    (folder / "training_options.json").write_text("{}")
    result = run(f"--network={folder}", f"--data={grey_data}")
    names = [row["snapshot_pkl"] for row in rows(result)]
    assert names == ["network-snapshot-000001.pkl", "network-snapshot-000002.pkl"]
    assert (folder / "metric-fid50k_full.jsonl").read_text() == result.stdout


def test_plain_folder(tmp_path, grey_data):
    folder = tmp_path / "networks"
    folder.mkdir()
    shutil.copy(GREY, folder / "b.pkl")
    shutil.copy(GREY, folder / "a.pkl")
    result = run(f"--network={folder}", f"--data={grey_data}")
    assert [Path(row["snapshot_pkl"]).name for row in rows(result)] == ["a.pkl", "b.pkl"]
    assert sorted(os.listdir(folder)) == ["a.pkl", "b.pkl"]


def test_no_metrics(grey_data):
    assert run(f"--network={GREY}", "--metrics=none").stdout == ""


def test_two_processes_through_the_command_line(grey_data, tmp_path, monkeypatch):
    """Rank 0 writes beside the pickle of a run; what it prints goes past this process."""
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "run").mkdir()
    network = shutil.copy(GREY, tmp_path / "run" / "network.pkl")
    (tmp_path / "run" / "training_options.json").write_text("{}")
    run(f"--network={network}", "--metrics=is50k", f"--data={grey_data}", "--gpus=2")
    (row,) = map(json.loads, (tmp_path / "run" / "metric-is50k.jsonl").read_text().splitlines())
    assert row["num_gpus"] == 2
    alone = rows(run(f"--network={GREY}", f"--data={grey_data}", "--metrics=is50k"))[0]
    assert row["results"] == pytest.approx(alone["results"], rel=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--metrics=fid"], "'--metrics': no metric is called 'fid'; valid ones: fid50k_full, kid50k_full, "),
        (["--metrics=fid50k,,is50k"], "'--metrics': expected names with commas between them"),
        (["--gpus=0"], "'--gpus': 0 is not in the range x>=1"),
        (["--num-gen=0"], "'--num-gen': 0 is not in the range x>=1"),
        (["--network=none.pkl"], "'--network': expected a file, a folder or a URL, found 'none.pkl'"),
    ],
)
def test_usage_errors(args, message):
    assert message in error_line(run(f"--network={GREY}", *args, expect=2))


def test_folder_without_networks(tmp_path):
    result = run(f"--network={tmp_path}", expect=2)
    assert f"'--network': the folder {tmp_path} holds no network" in error_line(result)


def test_offline(monkeypatch):
    def offline(*_, **__):
        raise UrlError(f"URL {URL} could not be read: no connection; download it and pass the local path")

    monkeypatch.setattr(dnnlib.util, "open_url", offline)
    result = run(f"--network={URL}", expect=1)
    assert "could not be read: no connection; download it" in error_line(result)


def test_no_data_set():
    result = run(f"--network={CONDITIONAL}", expect=1)
    assert "pass --data" in error_line(result)


def test_data_set_that_does_not_exist(tmp_path):
    result = run(f"--network={GREY}", f"--data={tmp_path / 'none.zip'}", expect=1)
    assert "none.zip" in error_line(result)


def test_data_of_another_resolution(tmp_path):
    data = write_images(tmp_path / "small", random_images(4, side=16, num_channels=1))
    assert "16" in error_line(run(f"--network={GREY}", f"--data={data}", expect=1))


def test_damaged_network(tmp_path):
    (tmp_path / "cut.pkl").write_bytes(GREY.read_bytes()[:1000])
    assert "cut.pkl" in error_line(run(f"--network={tmp_path / 'cut.pkl'}", expect=1))


def test_agreement_needs_a_network_to_compare_with():
    network, teacher = f"--network={GREY}", f"--teacher={GREY}"
    result = run(network, teacher, "--metrics=agreement")
    assert "data set" not in result.stderr, "none is read"
    (row,) = rows(result)
    assert row["results"] == {"agreement_psnr": 100, "agreement_ssim": 1, "agreement_lpips@clothing32": 0}
    assert row["protocol"]["teacher"]["name"] == "gray32.pkl"
    assert len(row["protocol"]["teacher"]["sha256"]) == 64
    assert error_line(run(network, "--metrics=agreement", expect=2)) == (
        "Error: --metrics=agreement needs --teacher, the network pickle to compare with")
    assert error_line(run(network, teacher, "--metrics=agreement", "--data=none.zip", expect=2)) == (
        "Error: --data: --metrics=agreement reads no real images; leave it out")
    assert error_line(run(network, teacher, "--metrics=is50k", expect=2)) == (
        "Error: --teacher can only be given together with --metrics=agreement")
    result = run(network, f"--teacher={CONDITIONAL}", "--metrics=agreement", expect=1)
    assert error_line(result).startswith("Error: --teacher: expected a network of the same images and latents, but ")


def job(**changes):
    settings = {
        "networks": [],
        "metrics": [],
        "data": None,
        "mirror": None,
        "device": "cpu",
        "trust_pickle": False,
        "verbose": False,
        "teacher": None,
        "options": {},
    }
    return calc_metrics.Job(**(settings | changes))


class SomeGenerator(torch.nn.Module):
    img_resolution, c_dim = 32, 0


def test_data_set_of_the_training():
    trained_on = {"class_name": "training.dataset.ImageFolderDataset", "path": "d.zip", "xflip": True, "max_size": 9}
    options = calc_metrics.dataset_options(job(), SomeGenerator(), trained_on)
    assert options == trained_on | {"resolution": 32, "use_labels": False}
    assert calc_metrics.dataset_options(job(mirror=False), SomeGenerator(), trained_on)["xflip"] is False
    assert calc_metrics.dataset_options(job(), SomeGenerator(), {}) == {}


def test_a_pickle_does_not_choose_what_is_run():
    harmful = {"class_name": "os.system", "path": "x", "command": "true"}
    with pytest.raises(UserError, match=r"its data set is of the unknown class os\.system; pass --data"):
        calc_metrics.dataset_options(job(), SomeGenerator(), harmful)
    strange = {"path": "d.zip", "anything": "else"}
    assert "anything" not in calc_metrics.dataset_options(job(), SomeGenerator(), strange)


def test_training_data_that_moved(monkeypatch):
    monkeypatch.setattr(calc_metrics, "load_network", lambda *_: (SomeNetwork(), {"path": "/nowhere/data.zip"}))
    result = run(f"--network={GREY}", expect=1)
    assert error_line(result) == "Error: the network's training data /nowhere/data.zip is not here; pass --data"


class SomeNetwork(torch.nn.Module):
    z_dim, c_dim, img_resolution, img_channels = 4, 0, 32, 1

    def forward(self, z, c):
        return torch.zeros([len(z), 1, 32, 32])


def test_numbers_are_those_of_the_library(grey_data):
    """The command adds nothing of its own: same distance as from the features directly."""
    from metrics.metric_main import calc_metric

    G, _ = calc_metrics.load_network(str(GREY), trust_pickle=False)
    dataset = {"class_name": "training.dataset.ImageFolderDataset", "path": str(grey_data)}
    options = {"G": G, "dataset_kwargs": dataset, "detectors": [str(DETECTOR)], "num_gen": 16, "device": "cpu"}
    expected = calc_metric("kid50k_full", **options).results
    (row,) = rows(run(f"--network={GREY}", "--metrics=kid50k_full", f"--data={grey_data}"))
    assert row["results"] == pytest.approx(expected, rel=1e-9)
    assert np.isfinite(list(expected.values())).all()


# Images in place of a network.


def test_distance_of_two_folders_is_that_of_their_features(grey_data, tmp_path):
    others = write_images(tmp_path / "others", random_images(14, side=32, num_channels=1, seed=7))
    detector = torchscript.load(DETECTOR.read_bytes(), torch.device("cpu"))

    def moments(folder):
        images = torch.stack([torch.from_numpy(image) for image, _ in ImageFolderDataset(str(folder))])
        features = detector(images.expand(-1, 3, -1, -1), return_features=True).detach().double()
        return features.mean(0).numpy(), features.T.cov(correction=0).numpy()

    args = [f"--data={grey_data}", "--num-gen=50000", "--metrics=fid50k_full,kid50k_full"]
    first, second = rows(run(f"--images={others}", *args))
    expected = frechet_distance(*moments(others), *moments(grey_data))
    assert first["results"]["fd@clothing32"] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert (first["protocol"]["num_gen"], first["protocol"]["num_real"]) == (14, 12)
    assert first["protocol"]["images"]["name"] == "others"
    assert not first["comparable"]
    assert list(second["results"]) == ["kd@clothing32"]
    same = rows(run(f"--images={grey_data}", f"--data={grey_data}"))
    assert same[0]["results"]["fd@clothing32"] == pytest.approx(0, abs=1e-6)


def test_metrics_that_need_a_network(grey_data):
    result = run(f"--images={grey_data}", f"--data={grey_data}", "--metrics=ppl2_wend", expect=1)
    assert error_line(result) == \
        "Error: --images: this metric needs a network, it cannot be computed from images; pass --network"


@pytest.mark.parametrize("args", [[], ["--images=a", f"--network={GREY}"]])
def test_network_or_images(args):
    assert "expected either --network or --images with --data" in CliRunner().invoke(calc_metrics.main, args).output


def test_images_need_data():
    result = CliRunner().invoke(calc_metrics.main, ["--images=a"])
    assert "--images: pass the images to compare with as --data" in result.output


def test_truncation(grey_data):
    args = [f"--network={GREY}", f"--data={grey_data}"]
    (plain,), (truncated,) = rows(run(*args)), rows(run(*args, "--trunc=0.5"))
    assert truncated["protocol"]["G_kwargs"] == {"truncation_psi": 0.5}
    assert not truncated["comparable"]
    assert plain["results"] != truncated["results"]


class Seeding(torch.nn.Module):
    """Changes random numbers, besides what a detector does."""

    def forward(self, img: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        torch.manual_seed(3)
        return img.float().mean(dim=[2, 3])


def test_detectors_with_side_effects_are_refused_unless_trusted(grey_data, tmp_path):
    path = tmp_path / "seeding.pt"
    with open(path, "wb") as file:
        torchscript.save(torchscript.script(Seeding()), file)
    args = [f"--detector={path}", f"--images={grey_data}", f"--data={grey_data}", "--device=cpu", "--no-cache"]
    refused = CliRunner().invoke(calc_metrics.main, args)
    assert refused.exit_code == 1
    assert "refused: its code names `torch.manual_seed`, which is not known to only compute; if you trust it, pass " \
           f"--trust-detector or --detector={path}#sha256=" in error_line(refused)
    state = torch.get_rng_state()
    trusted = CliRunner().invoke(calc_metrics.main, [*args, "--trust-detector"])
    torch.set_rng_state(state)
    assert trusted.exit_code == 0, trusted.output
    assert json.loads(trusted.stdout)["results"]["fd@seeding"] == pytest.approx(0, abs=1e-6)
