"""The configuration of a run: what it writes, what it reads, and what it refuses in one line."""
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import train
from dnnlib.errors import UserError
from tests import tiny
from tests.training import tiny_runs
from training import run_config


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tiny_runs.options(tiny.write_data(tmp_path_factory.mktemp("data") / "images"), *tiny_runs.STYLEGAN2)


def test_what_is_written_is_read_back(options: dict[str, Any]) -> None:
    config = run_config.from_dict(options)
    assert run_config.from_dict(config.to_dict()) == config
    assert config.schedule.batch_size == 4
    assert config.to_dict().items() <= {**options, "num_gpus": 1}.items()


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
    (b" " * (5 << 20), "it has 5,242,880 bytes, more than the 4,194,304 that such a file may have"),
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
])
def test_foreign_values(
    key: str, value: Any, reason: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("system", "popen"):
        monkeypatch.setattr(f"os.{name}", None)
    message = refused(tmp_path / "run", json.dumps({**options, key: value}).encode())
    assert reason in message


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
