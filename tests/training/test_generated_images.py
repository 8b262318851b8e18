"""A network's images as a source of data sets."""
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import dataset_tool
from tests import tiny
from training.checkpoints.pickles import open_networks
from training.data.dataset import ImageFolderDataset
from training.data.generated import images, latents


@pytest.mark.parametrize("c_dim", [0, 3])
def test_a_data_set_of_a_networks_images(c_dim: int, tmp_path: Path) -> None:
    path = tiny.write_teacher(tmp_path / "network.pkl", c_dim=c_dim)
    args = [f"--source={path}", f"--dest={tmp_path}/data.zip", "--max-images=19"]
    result = CliRunner().invoke(dataset_tool.main, args)
    assert result.exit_code == 0, result.output
    dataset = ImageFolderDataset(f"{tmp_path}/data.zip", use_labels=True)
    expected, _ = images(open_networks(path)["G_ema"], 0, range(19))
    assert len(dataset) == 19
    assert np.array_equal(np.stack([dataset[i][0] for i in range(19)]), expected.numpy())
    assert dataset.label_dim == c_dim
    if c_dim:
        assert [int(dataset[i][1].argmax()) for i in range(4)] == [0, 1, 2, 0]


def test_later_images_are_the_same_ones(tmp_path: Path) -> None:
    path = tiny.write_teacher(tmp_path / "network.pkl")
    args = [f"--source={path}", f"--dest={tmp_path}/data", "--range=17:19"]
    result = CliRunner().invoke(dataset_tool.main, args)
    assert result.exit_code == 0, result.output
    expected, _ = images(open_networks(path)["G_ema"], 0, range(19))
    stored = ImageFolderDataset(f"{tmp_path}/data")
    assert np.array_equal(stored[1][0], expected[18].numpy())


def test_the_number_of_images_must_be_given(tmp_path: Path) -> None:
    path = tiny.write_teacher(tmp_path / "network.pkl")
    result = CliRunner().invoke(dataset_tool.main, [f"--source={path}", f"--dest={tmp_path}/data.zip"])
    assert result.exit_code == 1
    assert result.output == f"Error: --max-images: pass how many images {path} is to make\n"


def test_what_is_no_network_is_named(tmp_path: Path) -> None:
    (tmp_path / "network.pkl").write_bytes(b"nothing")
    args = [f"--source={tmp_path}/network.pkl", f"--dest={tmp_path}/data.zip", "--max-images=3"]
    result = CliRunner().invoke(dataset_tool.main, args)
    assert result.exit_code == 1
    assert f"{tmp_path}/network.pkl" in result.output
    assert not (tmp_path / "data.zip").exists()


def test_latents_of_other_numbers_and_seeds_differ() -> None:
    G = tiny.tiny_generator()
    z, _ = latents(G, 0, [0, 1, 2])
    assert torch.equal(latents(G, 0, [2])[0], z[2:])
    assert len({tuple(row.tolist()) for row in torch.cat([z, latents(G, 1, [0, 1, 2])[0]])}) == 6
