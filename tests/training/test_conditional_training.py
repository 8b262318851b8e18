"""Training with labels, from the images to the pictures of a class; labels that are wrong, and labels not used."""
import json

import pytest
import torch
from click.testing import CliRunner

import dataset_tool
import generate
import train
from tests import tiny
from tests.helpers import random_images, write_images
from tests.training import tiny_runs
from training.checkpoints.pickles import open_networks


def invoke(data, *args):
    command = [f"--data={data}", "--outdir=/tmp/runs", "--metrics=none", "--dry-run", "--no-estimate",
               *tiny_runs.STYLEGAN2, *args]
    return CliRunner().invoke(train.main, command)


def trained(folder, data):
    """The last snapshot of a short conditional run."""
    config = tiny_runs.options(str(data), *tiny_runs.STYLEGAN2, "--cond=true", "--aug=noaug")
    tiny_runs.run(folder, config, total_kimg=0.02)
    return max(folder.glob("network-snapshot-*.pkl"))


def test_class_sub_folders_end_to_end(tmp_path):
    images = {f"{kind}/{name}": image for kind in ("cat", "dog", "eel") for name, image in random_images(4).items()}
    source = write_images(tmp_path / "animals", images)
    args = [f"--source={source}", f"--dest={tmp_path}/data.zip", "--subfolders-as-labels", "--resolution=16x16"]
    assert CliRunner().invoke(dataset_tool.main, args).exit_code == 0
    snapshot = trained(tmp_path / "run", tmp_path / "data.zip")
    networks = open_networks(str(snapshot))
    assert {networks[name].c_dim for name in ("G", "D", "G_ema")} == {3}
    assert networks["training_set_kwargs"]["use_labels"] is True
    out = tmp_path / "out"
    for idx in range(3):
        args = [f"--network={snapshot}", "--seeds=0", f"--class={idx}", f"--outdir={out}/{idx}", "--device=cpu"]
        result = CliRunner().invoke(generate.main, args)
        assert result.exit_code == 0, result.output
    assert len({(out / str(idx) / "seed0000.png").read_bytes() for idx in range(3)}) == 3


@pytest.mark.parametrize(
    ("labels", "c_dim"),
    [
        pytest.param([2, 0, 2, 1, 0, 4], 5, id="class numbers with a gap"),
        pytest.param([[0.5, 1, 0], [1, 1, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0.25]], 3, id="vectors"),
    ],
)
def test_labels_of_dataset_json(tmp_path, labels, c_dim):
    data = write_images(tmp_path / "data", random_images(6, side=16), labels)
    networks = open_networks(str(trained(tmp_path / "run", data)))
    assert networks["G_ema"].c_dim == c_dim
    z = torch.ones([2, 16])
    first, second = networks["G_ema"](z, torch.eye(c_dim)[:2])
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", 1], r'/dataset.json: label of 0.png is "cat", expected a class number'),
        ([0, -1], r"/dataset.json: label of 1.png is -1, expected a class number from 0 up"),
        ([0, [1, 0]], r"/dataset.json: label of 1.png is a vector of shape [2], but 0.png has a class number"),
        ([1, None], r"/dataset.json: no label for 1.png"),
    ],
)
def test_wrong_labels_are_named(tmp_path, labels, message):
    data = write_images(tmp_path / "data", random_images(2, side=16), labels)
    result = invoke(data, "--cond=true")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert f"{data}{message}" in result.stderr
    assert result.stderr.count("\n") == 1
    assert invoke(data).exit_code == 0  # without labels they do no harm


def test_image_without_label_is_named(tmp_path):
    data = write_images(tmp_path / "data", random_images(3, side=16))
    (data / "dataset.json").write_text(json.dumps({"labels": [["0.png", 1], ["2.png", 0]]}))
    result = invoke(data, "--cond=true")
    assert f"{data}/dataset.json: no label for 1.png" in result.stderr


@pytest.mark.parametrize("content", [None, '{"labels": null}'])
def test_conditional_training_needs_labels(tmp_path, content):
    data = write_images(tmp_path / "data", random_images(2, side=16))
    if content is not None:
        (data / "dataset.json").write_text(content)
    result = invoke(data, "--cond=true")
    assert result.exit_code == 2
    assert f"--cond: {data} has no labels; write them into dataset.json" in result.stderr


def test_labels_that_are_not_used_are_mentioned(tmp_path, caplog):
    data = tiny.write_data(tmp_path / "data", num_classes=2)
    assert invoke(data).exit_code == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{data} has labels, which are not used; --cond=true trains with them, --cond=false says that this is meant"
    ]


@pytest.mark.parametrize(("num_classes", "args"), [(2, ["--cond=false"]), (2, ["--cond=true"]), (0, [])])
def test_nothing_to_mention(tmp_path, caplog, num_classes, args):
    data = tiny.write_data(tmp_path / "data", num_classes=num_classes)
    assert invoke(data, *args).exit_code == 0
    assert not caplog.records
