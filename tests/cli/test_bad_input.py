"""Bad networks, data, folders and addresses, for every command line: one line, a status, and nothing left behind."""
import builtins
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import calc_metrics
import dataset_tool
import dnnlib
import generate
import legacy
import projector
import prune_init
import style_mixing
import train
from tests import tiny, tiny_biggan
from tests.helpers import forget_statistics, random_images, write_images

ROOT = Path(train.__file__).parent
NO_SERVER = "http://127.0.0.1:9/network.pkl"  # the discard port: nobody listens


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def calling(function, *args):
    return pickle.dumps({"G": Call(function, *args), "D": None, "G_ema": None})


class Folder:
    """Good files, and bad ones of every kind."""

    def __init__(self, path):
        self.path = path
        self.data = tiny.write_data(path / "data", num=4)
        self.good = tiny.write_teacher(path / "good.pkl")
        whole = Path(self.good).read_bytes()
        self.mark = path / "executed"
        contents = {
            "truncated": whole[: len(whole) // 2],
            "empty": b"",
            "text": b"This is no pickle at all.\n",
            "page": b"<!DOCTYPE html><html>not found</html>",
            "zip": Path(self.data).read_bytes(),
            "system": calling(os.system, f"touch {self.mark}"),
            "eval": calling(builtins.eval, f"open({str(self.mark)!r}, 'w').close()"),
            "unknown": calling(json.JSONDecoder).replace(b"JSONDecoder", b"JSONFoobars"),
            "number": pickle.dumps(3),
            "no_networks": pickle.dumps({"G": None}),
        }
        for name, content in contents.items():
            (path / f"{name}.pkl").write_bytes(content)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Folder(tmp_path_factory.mktemp("files"))


@pytest.fixture(autouse=True)
def cache_dir(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(dnnlib.urls, "_cache_dir", str(tmp_path_factory.mktemp("cache")))


def commands(network, out, data):
    """Every command line that reads a network, with `network` as that and everything it writes in `out`."""
    rest = "--target=never-read.png --save-video=0"
    return {
        "train": (train, [f"--cfg=dgl --teacher={network} --width=0.5 --data={data} --outdir={out} --cond=0"]),
        "prune_init": (prune_init, [f"--teacher={network} --width=0.5 --dest={out}/student.pkl"]),
        "generate": (generate, [f"--network={network} --seeds=1 --outdir={out}"]),
        "style_mixing": (style_mixing, [f"--network={network} --rows=1 --cols=2 --outdir={out}"]),
        "projector": (projector, [f"--network={network} --outdir={out} {rest}"]),
        "calc_metrics": (calc_metrics, [f"--network={network} --data={data} --metrics=is50k --num-gen=4"]),
        "legacy": (legacy, [f"--source={network} --dest={out}.pkl"]),
    }


NAMES = list(commands("", "", ""))


def refusal(name, network, out, data):
    """The one line with which a command ends."""
    module, (line,) = commands(network, out, data)[name]
    result = CliRunner().invoke(module.main, line.split())
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert not out.exists()
    assert not out.with_suffix(".pkl").exists()
    (error,) = [text for text in result.stderr.splitlines() if text]
    assert error.startswith("Error: ")
    assert len(error) < 500
    return error


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", ""),
        ("truncated", "the file is truncated, damaged or not a network pickle"),
        ("empty", "the file is empty"),
        ("text", "not a network pickle: it does not begin as one"),
        ("page", "not a network pickle but a web page"),
        ("zip", "not a network pickle but a zip archive"),
        ("system", f"refused: the file names {os.system.__module__}.system, which no network pickle needs."),
        ("eval", "refused: the file names builtins.eval, which no network pickle needs."),
        ("unknown", "refused: the file names json.decoder.JSONFoobars, which no network pickle needs."),
        ("number", "found a int"),
        ("no_networks", "the pickle holds no G, D, G_ema"),
    ],
)
def test_networks(name, kind, message, files, tmp_path):
    path = files.path / f"{kind}.pkl"
    error = refusal(name, path, tmp_path / "out", files.data)
    assert str(path) in error
    assert message in error
    assert not files.mark.exists()


@pytest.mark.parametrize("name", NAMES)
def test_addresses_while_offline(name, files, tmp_path, monkeypatch):
    monkeypatch.setattr(dnnlib.download.time, "sleep", lambda sec: None)
    error = refusal(name, NO_SERVER, tmp_path / "out", files.data)
    assert f"URL {NO_SERVER} could not be read: no connection to 127.0.0.1:9" in error
    assert error.endswith("; download it and pass the local path")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "calc_metrics"])
@pytest.mark.parametrize("place", ["file/below", "file/far/below"])
def test_folders_that_cannot_be_written(name, place, files, tmp_path):
    """A file stands where a folder is needed: even root cannot write there."""
    (tmp_path / "file").write_text("mine")
    module, (line,) = commands(files.good, tmp_path / place, files.data)[name]
    result = CliRunner().invoke(module.main, line.split())
    assert result.exit_code in (1, 2), result.output
    assert [text.split(":")[0] for text in result.stderr.splitlines() if text] == ["Error"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


def test_trusting_a_file_executes_it(files, tmp_path):
    """What --trust-pickle is for, and what it is not for."""
    result = CliRunner().invoke(
        generate.main, [f"--network={files.path}/eval.pkl", "--seeds=1", f"--outdir={tmp_path}/out", "--trust-pickle"]
    )
    assert result.exit_code == 1
    assert files.mark.exists()
    files.mark.unlink()
    for name in ("train", "prune_init", "calc_metrics", "legacy", "projector", "style_mixing"):
        module, _ = commands("", "", "")[name]
        assert "--trust-pickle" in CliRunner().invoke(module.main, ["--help"]).output


# Data.


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({"resolution": 32}, "is for 32x32 images, the data set's are 16x16; convert the data to 32x32 with "
                             "dataset_tool.py, or pass another teacher"),
        ({"channels": 1}, "has 1 image channel(s), the data set 3; convert the data to 1 channel(s) with "
                          "dataset_tool.py, or pass another teacher"),
        ({"c_dim": 3}, "takes labels of size 3, the data set gives 0; pass --cond=true, or pass another teacher"),
    ],
)  # fmt: skip
def test_teachers_for_other_data(teacher, message, files, tmp_path):
    path = tiny.write_teacher(tmp_path / "teacher.pkl", **teacher)
    error = refusal("train", path, tmp_path / "out", files.data)
    assert error == f"Error: --teacher: G_ema of teacher.pkl {message}"


def test_teachers_for_different_images(files, tmp_path):
    first, second = (tiny.write_teacher(tmp_path / f"{n}.pkl", channels=n) for n in (3, 1))
    args = [f"--teacher={first}", f"--teacher={second}", f"--data={files.data}", "--cfg=dgl", "--width=1", "--cond=0"]
    args += ["--recipe=paper", f"--outdir={tmp_path}/out"]
    result = CliRunner().invoke(train.main, args)
    assert result.exit_code == 1
    assert result.stderr == ("Error: --teacher: all teachers must be for the same images and labels, but "
                             f"{first} is for 16x16 images of 3 channel(s) and labels of size 0 and "
                             f"{second} is for 16x16 images of 1 channel(s) and labels of size 0\n")


@pytest.mark.parametrize(("cfg", "start"), [("dgl", "--init"), ("stylegan2", "--resume")])
def test_what_a_resumed_run_refuses_names_the_way_to_start_a_new_run(cfg, start, files, tmp_path):
    teacher = [f"--teacher={tiny.write_teacher(tmp_path / 'teacher.pkl')}", "--width=1"] if cfg == "dgl" else []
    args = [f"--data={files.data}", f"--outdir={tmp_path}/out", f"--cfg={cfg}", "--cond=0", "--dry-run",
            "--no-estimate", *teacher]
    shown = CliRunner().invoke(train.main, args)
    assert shown.exit_code == 0, shown.output
    run = tmp_path / "run"
    run.mkdir()
    (run / "training_options.json").write_text(shown.stdout.partition("\n")[2].rpartition("\n\n")[0])
    result = CliRunner().invoke(train.main, [f"--resume={run}", "--gamma=3"])
    assert result.exit_code == 1
    assert result.stderr.endswith(f"cannot change --gamma when resuming; remove it, or start a new run from one of its "
                                  f"pickles with {start}={run}"
                                  "/network-snapshot-….pkl\n")
    result = CliRunner().invoke(train.main, [f"--resume={run}", "--detector=none.pt"])
    assert (result.exit_code, result.stderr) == (1, "Error: --detector: none.pt: no such file\n")


def test_legacy_does_not_write_over_its_source(files, tmp_path):
    path = tiny.write_teacher(tmp_path / "teacher.pkl")
    before = (tmp_path / "teacher.pkl").read_bytes()
    result = CliRunner().invoke(legacy.main, [f"--source={path}", f"--dest={tmp_path}/../{tmp_path.name}/teacher.pkl"])
    assert result.exit_code == 1
    assert result.stderr.endswith("teacher.pkl is what --source names; name another\n")
    assert (tmp_path / "teacher.pkl").read_bytes() == before


def test_teachers_for_another_number_of_classes(tmp_path):
    data = tiny.write_data(tmp_path / "data", num_classes=4)
    path = tiny.write_teacher(tmp_path / "teacher.pkl", c_dim=3)
    args = [f"--teacher={path}", f"--data={data}", "--cfg=dgl", "--width=1", "--cond=1", f"--outdir={tmp_path}/out"]
    result = CliRunner().invoke(train.main, args)
    assert result.exit_code == 1
    assert "takes labels of size 3, the data set gives 4; fix dataset.json, or pass another teacher" in result.stderr


BAD_IMAGES = {
    "corrupt": (b"\x89PNG\r\n\x1a\nand nothing more", "z.png: cannot be read: "),
    "odd": (np.zeros([16, 15, 3], np.uint8), "z.png (RGB 15x16): "),
    "rgba": (np.zeros([16, 16, 4], np.uint8), "z.png (RGBA 16x16): has an alpha channel, expected greyscale (L) or"),
}


def with_bad_image(folder, kind):
    return write_images(folder, {**random_images(4, side=16), "z.png": BAD_IMAGES[kind][0]})


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_one_bad_image_in_metrics_and_conversion(kind, files, tmp_path):
    data = with_bad_image(tmp_path / "data", kind)
    detector = f"--detector={ROOT}/metrics/detectors/clothing32.pt"
    args = [f"--network={files.good}", f"--data={data}", "--num-gen=4", "--verbose=false", "--device=cpu", detector]
    result = CliRunner().invoke(calc_metrics.main, args)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {data}/{BAD_IMAGES[kind][1]}")
    assert result.stderr.count("\n") == 1
    result = CliRunner().invoke(dataset_tool.main, [f"--source={data}", f"--dest={tmp_path}/out.zip"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: --source: {BAD_IMAGES[kind][1]}")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(("kind", "workers"), [("corrupt", 0), ("odd", 2), ("rgba", 0)])
def test_one_bad_image_in_training(kind, workers, tmp_path):
    """With loader processes in a process of its own, which must also come to its end."""
    data = with_bad_image(tmp_path / "data", kind)
    args = [f"--data={data}", f"--outdir={tmp_path}/runs", "--batch=4", "--mbstd-group=2", "--aug=noaug", "--cbase=64",
            "--cmax=8", "--metrics=none", f"--workers={workers}", "--device=cpu"]
    if workers == 0:
        forget_statistics()
        done = CliRunner().invoke(train.main, args)
        assert done.exit_code == 1
    else:
        command = [sys.executable, "train.py", *args]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {data}/{BAD_IMAGES[kind][1]}")
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("kind", ["truncated", "eval", "other"])
def test_a_run_that_cannot_start_leaves_no_folder(kind, files, tmp_path):
    """With --resume=PKL the networks are read after the run's folder has been made."""
    path = tiny_biggan.write_teacher(tmp_path / "other.pkl") if kind == "other" else f"{files.path}/{kind}.pkl"
    args = [f"--data={files.data}", f"--resume={path}", f"--outdir={tmp_path}/runs", "--batch=4", "--aug=noaug",
            "--metrics=none", "--workers=0", "--device=cpu", "--cbase=64", "--cmax=8"]
    forget_statistics()
    done = CliRunner().invoke(train.main, args)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "runs").iterdir())
    assert not files.mark.exists()


def test_metrics_that_do_not_exist(files):
    for module, args in ((train, [f"--data={files.data}", "--outdir=x"]), (calc_metrics, [f"--network={files.good}"])):
        result = CliRunner().invoke(module.main, [*args, "--metrics=fid50k_full,fid5k"])
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: Invalid value for '--metrics': no metric is called 'fid5k'; valid ones")
        assert result.stderr.count("\n") == 1
