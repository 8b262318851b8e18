"""The configuration of a run: what it writes, what it reads, and what it refuses in one line."""
import json
import re
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import train
from dnnlib.errors import UserError
from tests import tiny
from tests.training import tiny_runs
from training import run_config
from training.estimates import limits


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_runs.options(tiny.write_data(tmp_path_factory.mktemp("data") / "images"), *tiny_runs.STYLEGAN2)


def test_what_is_written_is_read_back(options: dict[str, Any]) -> None:
    config = run_config.from_dict(options)
    assert run_config.from_dict(config.to_dict()) == config
    assert config.schedule.batch_size == 4
    assert config.to_dict().items() <= {**options, "num_gpus": 1}.items()


def test_lengths_have_no_upper_bound(options: dict[str, Any]) -> None:
    config = run_config.from_dict({**options, "ema_kimg": 1e9, "ada_kimg": 10**9})
    assert (config.ema.kimg, config.augmentation.ada_kimg) == (1e9, 10**9)


def test_a_section_is_changed_by_field(options: dict[str, Any]) -> None:
    config = run_config.from_dict(options)
    longer = config.changed(schedule={"total_kimg": 7})
    assert (longer.schedule.total_kimg, longer.schedule.batch_size) == (7, config.schedule.batch_size)
    assert longer.networks == config.networks


def refused(folder: Path, content: bytes) -> str:
    """What train.py --resume answers to a run directory with this file: one line."""
    folder.mkdir(exist_ok=True)
    (folder / run_config.FILE_NAME).write_bytes(content)
    result = CliRunner().invoke(train.main, [f"--resume={folder}", "--device=cpu", "--trust-pickle"])
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith(f"Error: {folder}/{run_config.FILE_NAME}: "), result.stderr
    return result.stderr


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "Expecting value"),
    (b'{"num_gpus": 1, "met', "Unterminated string"),
    (b'{"num_gpus": "\xff"}', "can't decode byte 0xff"),
    (b"[]", "expected a dictionary, found a list"),
    (b"null", "expected a dictionary, found a NoneType"),
    (b"3", "expected a dictionary, found a int"),
    (b'{"total_kimg": NaN}', "NaN is no JSON"),
    (b"[" * 100_000, ""),
    (b'{"x": ' * 30 + b"1" + b"}" * 30, "nested more than 20 deep"),
    (b"{}", "the key 'training_set_kwargs' is missing"),
    (b" " * (2 << 20), "it has 2,097,152 bytes, more than the 1,048,576 that such a file may have"),
], ids=["empty", "cut", "not-utf8", "list", "null", "number", "nan", "brackets", "deep", "nothing", "large"])
def test_damaged_files(content: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refused(tmp_path / "run", content)


@pytest.mark.parametrize(("key", "value", "reason"), [
    ("batch_size", "4", "batch_size: expected int, found '4'"),
    ("batch_size", True, "batch_size: expected int, found True"),
    ("total_kimg", None, "total_kimg: expected float, found None"),
    ("metrics", [1], "metrics: expected a list of texts, found [1]"),
    ("G_kwargs", None, "G_kwargs: expected a dictionary with 'class_name', found None"),
    ("G_kwargs", {}, "G_kwargs: expected a dictionary with 'class_name', found {}"),
    ("colour", 1, "unknown key 'colour'"),
    ("G_kwargs", {"class_name": "os.system", "command": "true"}, "G_kwargs: unknown network class 'os.system'; known"),
    ("D_kwargs", {"class_name": "subprocess.Popen", "args": "true"}, "D_kwargs: unknown network class 'subprocess.Pop"),
    ("loss_kwargs", {"class_name": "os.system"}, "loss_kwargs: unknown loss 'os.system'"),
    ("training_set_kwargs", {"class_name": "os.system"}, "training_set_kwargs: unknown data set 'os.system'"),
    ("G_opt_kwargs", {"class_name": "os.system"}, "G_opt_kwargs: unknown optimizer 'os.system'"),
    ("augment_kwargs", {"class_name": "os.system"}, "augment_kwargs: unknown augmentation 'os.system'"),
    ("init_kwargs", {"func_name": "os.system"}, "init_kwargs: unknown initializer 'os.system'"),
    ("batch_size", 1 << 40, "batch_size: expected at least 1 and at most 1,048,576, found 1099511627776"),
])
def test_foreign_values(
    key: str, value: Any, reason: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("system", "popen"):
        monkeypatch.setattr(f"os.{name}", None)
    message = refused(tmp_path / "run", json.dumps({**options, key: value}).encode())
    assert reason in message


@pytest.mark.parametrize(("changes", "reason"), [
    ({"num_gpus": 0}, "num_gpus: expected at least 1 and at most 16,384, found 0"),
    ({"D_steps": 1001}, "D_steps: expected at least 1 and at most 1,000, found 1001"),
    ({"total_kimg": float("inf")}, "total_kimg: expected at least 0, found inf"),
    ({"random_seed": -1}, "random_seed: expected at least 0, found -1"),
    ({"data_loader_kwargs": {"num_workers": 257}},
     "data_loader_kwargs.num_workers: expected at least 0 and at most 256, found 257"),
    ({"loss_kwargs": {"class_name": "training.loss.StyleGAN2Loss", "g_terms": [{"size": [1 << 25]}]}},
     "loss_kwargs.g_terms.size: expected at most 16,777,216, found 33554432"),
    ({"G_kwargs": {"class_name": "training.networks.Generator", "mapping_kwargs": {"num_layers": 10**9}}},
     "G_kwargs.mapping_kwargs.num_layers: expected at least 0 and at most 200, found 1000000000"),
    ({"G_kwargs": {"class_name": "training.networks.Generator", "img_resolution": 1 << 30}},
     "G_kwargs.img_resolution: expected at most 16,777,216, found 1073741824"),
])
def test_numbers_have_bounds(changes: dict[str, Any], reason: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(reason)}$"):
        run_config.from_dict({**options, **changes})


STYLEGAN2, STYLEGAN3, BIGGAN = "training.networks", "training.networks_stylegan3", "training.networks_biggan"
WIDE = {"channel_base": 1 << 24, "channel_max": 1 << 24}


@pytest.mark.parametrize(("name", "arguments"), [
    (f"{STYLEGAN2}.Generator", {"z_dim": 8, "w_dim": 8, "synthesis_kwargs": WIDE}),
    (f"{STYLEGAN2}.Generator", {"z_dim": 1 << 24, "w_dim": 1 << 24}),
    (f"{STYLEGAN2}.Discriminator", WIDE),
    (f"{STYLEGAN3}.Generator", {"z_dim": 8, "w_dim": 8, **WIDE}),
    (f"{BIGGAN}.BigGANGenerator", {"G_ch": 1 << 24}),
    (f"{BIGGAN}.BigGANDiscriminator", {"D_ch": 1 << 24}),
])
def test_networks_that_cannot_fit_are_refused_before_they_are_made(name: str, arguments: dict[str, Any]) -> None:
    sizes = {"img_resolution": 64, "img_channels": 3, "c_dim": 10}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"^G_kwargs: a network of more than [\d,]+ elements cannot be trained in the "):
        limits.check_networks({"G_kwargs": run_config.Component(name, arguments)}, sizes, torch.device("cpu"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB; imports count


def test_networks_of_very_many_layers_are_refused() -> None:
    widths = {"G_channels": [4] * 6, "model": "BigGANdeep", "hier": True, "G_shared": True, "G_depth": 200}
    component = run_config.Component(f"{BIGGAN}.BigGANGenerator", widths)
    with pytest.raises(UserError, match="G_kwargs: a network of too many tensors cannot be trained"):
        limits.check_networks({"G_kwargs": component}, {"img_resolution": 128, "img_channels": 3, "c_dim": 10},
                              torch.device("cpu"))


def test_networks_for_other_images_than_the_data_set_has() -> None:
    component = run_config.Component(f"{STYLEGAN2}.Discriminator", {"img_resolution": 32})
    with pytest.raises(UserError, match="D_kwargs: expected img_resolution=64, as the data set has it, found 32"):
        limits.check_networks({"D_kwargs": component}, {"img_resolution": 64, "img_channels": 3, "c_dim": 0},
                              torch.device("cpu"))


def test_batches_that_cannot_fit_are_refused() -> None:
    limits.check_batches(64, [3, 1024, 1024], torch.device("cpu"))
    with pytest.raises(UserError, match=r"batch_size: 1,048,576,000 images per iteration take 12,288,000\.0 GiB, but"):
        limits.check_batches(1000 << 20, [3, 1024, 1024], torch.device("cpu"))


@pytest.mark.parametrize(("key", "change", "reason"), [
    ("G_kwargs", {"colour": 1}, "network class training.networks.Generator: got an unexpected keyword argument"),
    ("loss_kwargs", {"colour": 1}, "loss training.loss.StyleGAN2Loss: got an unexpected keyword argument"),
    ("loss_kwargs", {"g_terms": [{"class_name": "os.system"}]}, "unknown loss term 'os.system'"),
])
def test_arguments_that_nothing_takes(key: str, change: dict[str, Any], reason: str, options: dict[str, Any],
                                      tmp_path: Path) -> None:
    changed = {**options, key: {**options[key], **change}}
    with pytest.raises(UserError, match=reason):
        tiny_runs.run(tmp_path / "run", changed)
