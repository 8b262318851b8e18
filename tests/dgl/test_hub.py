"""Folders for a model hub: what is in them, and that they come back as the same network."""
import hashlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import dgl
import export
from dnnlib.errors import UserError
from tests import tiny


def run(*args: str) -> Any:
    return CliRunner().invoke(export.main, [*args, "--format=hub"])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "net.pkl", c_dim=2)


@pytest.fixture(scope="module")
def folder(network: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "my-model"
    scores = path.with_name("metric-fd.jsonl")
    scores.write_text("".join(json.dumps({"metric": "fd", "results": {"fd": fd}, "protocol": {"num_gen": 50}}) + "\n"
                              for fd in (7.5, 1.25)))
    result = run(f"--network={network}", f"--dest={path}", f"--teacher={network}", f"--scores={scores}")
    assert result.exit_code == 0, result.output
    return path


def test_what_is_in_a_folder(folder: Path, network: str) -> None:
    assert {item.name for item in folder.iterdir()} == {"README.md", "config.json", "model.safetensors", "samples.png"}
    card = (folder / "README.md").read_text()
    sha256 = hashlib.sha256(Path(network).read_bytes()).hexdigest()
    for text in ("A generator (stylegan2) for 16x16 images of 3 channel(s) of 2 classes", '"num_layers": 2',
                 "`stylegan2.Generator` with these arguments", f"`net.pkl` (sha256 `{sha256}`)",
                 'fd: 1.25 (protocol: `{"num_gen": 50}`)', 'dgl.from_pretrained("my-model")',
                 "NVIDIA", "![6 x 4 samples"):
        assert text in card
    assert "7.5" not in card
    assert json.loads((folder / "config.json").read_text())["networks"]["G_ema"]["class"] == "stylegan2.Generator"


def test_the_code_of_the_card_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["image"].shape == (1, 3, 16, 16)


def test_networks_come_back(folder: Path, network: str) -> None:
    z, c = tiny.latents(2, c_dim=2)
    expected = dgl.load(network)(z, c, noise_mode="const")
    assert torch.equal(dgl.from_pretrained(folder)(z, c, noise_mode="const"), expected)
    assert torch.equal(dgl.load(folder)(z, c, noise_mode="const"), expected)


def test_pickles_in_a_folder_are_not_read(folder: Path, network: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "network.pkl").write_bytes(Path(network).read_bytes())
    with pytest.raises(UserError, match=r"expected model\.safetensors beside config\.json, found none; network\.pkl is "
                                        r"not read from such a folder, name the file itself"):
        dgl.from_pretrained(tmp_path)


def test_the_hub_client_is_asked_for_safe_files_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def snapshot_download(name: str, **kwargs: Any) -> str:
        calls.append((name, kwargs))
        return str(folder)

    client = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    assert dgl.from_pretrained("owner/net", revision="v1").img_resolution == 16
    assert calls == [("owner/net", {"revision": "v1", "allow_patterns": ["*.safetensors", "*.json"]})]


def test_bad_input(folder: Path, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for name, revision, message in (
        ("owner/net", None, r"fetching it from the hub needs the package huggingface_hub.*install the extra \[hub\]"),
        (folder, "v1", "revision: a folder .* has no revisions"),
        ("nothing", None, "name: expected a folder or OWNER/NAME on the hub, found 'nothing'"),
    ):
        with pytest.raises(UserError, match=message):
            dgl.from_pretrained(name, revision=revision)
    with pytest.raises(UserError, match="role: expected one of G_ema, G, D, found 'F'"):
        dgl.load(network, role="F")
    with pytest.raises(UserError, match="holds no D, which is needed here"):
        dgl.load(folder, role="D")
    scores = tmp_path / "s.jsonl"
    for text in ("{", "", "[1]", '{"a": 1}'):
        scores.write_text(text)
        result = run(f"--network={network}", f"--dest={tmp_path}/new", f"--scores={scores}")
        assert result.exit_code == 1
        assert result.output.startswith("Error: --scores: ")
    result = run(f"--network={network}", f"--dest={tmp_path}/new", f"--teacher={tmp_path}/none.pkl")
    assert result.output == f"Error: --teacher: {tmp_path}/none.pkl: cannot be read: No such file or directory\n"
    assert not (tmp_path / "new").exists()
