"""Every way out that a message about a network file names is taken, and leads to the network."""
import ast
import gzip
import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dnnlib.errors import UserError
from tests import tiny, tiny_biggan
from tests.helpers import GOLDEN
from training.biggan import checkpoints as biggan_checkpoints
from training.checkpoints import pickles, rosinality, safetensors_files, transfer

ROOT = Path(__file__).resolve().parents[2]
LOADING = [*(ROOT / "training/checkpoints").rglob("*.py"), *(ROOT / "torch_utils/checkpoint").glob("*.py"),
           *(ROOT / "training/biggan").glob("*checkpoints.py"), ROOT / "training/biggan/studiogan.py",
           ROOT / "training/stylegan3/records.py", ROOT / "dnnlib/urls.py", ROOT / "dnnlib/download.py"]
WAY_OUT = re.compile(r"\b(Pass|pass|leave out|fetch|unpack|download (it|them)|save network|export|name the|"
                     r"name another|Use|use an|convert the data|remove the|newest network)\b")

Case = Callable[[Path], tuple[Callable[[], Any], Callable[[], Any]]]


class Foreign(torch.nn.Module):
    """Of a class that network files do not need."""


OWN_CLASS = '''
import torch
from torch_utils import persistence

@persistence.persistent_class
class Sketcher(torch.nn.Module):
    z_dim = 2
'''


def opened(path: Path, role: str = "G_ema", **kwargs: Any) -> Any:
    return pickles.open_networks(str(path), **kwargs)[role]


def written(path: Path, **parts: Any) -> Path:
    pickles.save_networks(parts, path)
    return path


def trusting(folder: Path) -> Any:
    path = written(folder / "x.pkl", G=tiny.tiny_generator(), D=Foreign(), G_ema=tiny.tiny_generator())
    return lambda: opened(path, "D"), lambda: opened(path, "D", trust_pickle=True)


def own_text(folder: Path) -> Any:
    (folder / "sketcher_text.py").write_text(OWN_CLASS)
    sys.path.insert(0, str(folder))
    try:
        module = importlib.import_module("sketcher_text")
    finally:
        sys.path.remove(str(folder))
    path = written(folder / "x.pkl", G_ema=module.Sketcher())
    return lambda: opened(path), lambda: opened(path, trust_pickle=True)


def earlier(folder: Path) -> Any:
    broken = tiny.tiny_generator()
    broken.synthesis.b4.const.fill_(float("nan"))
    paths = [written(folder / f"{i}.pkl", G_ema=G) for i, G in enumerate((tiny.tiny_generator(), broken))]
    return lambda: opened(paths[1]), lambda: opened(paths[0])


def another_shape(folder: Path) -> Any:
    paths = [written(folder / f"{base}.pkl", G_ema=tiny.tiny_generator(base_size=[4, base])) for base in (2, 4)]
    target = {"G_ema": tiny.tiny_generator()}
    return tuple(lambda path=path: transfer.from_pickle(target, str(path)) for path in paths)  # type: ignore[misc]


def another_size(folder: Path) -> Any:
    paths = [written(folder / f"{name}.pkl", G_ema=tiny_biggan.tiny_generator(name)) for name in ("hier64", "plain32")]
    target = {"G_ema": tiny_biggan.tiny_generator("plain32", seed=1)}
    return tuple(lambda path=path: transfer.from_pickle(target, str(path)) for path in paths)  # type: ignore[misc]


def all_parts(folder: Path) -> Any:
    nets = tiny.tiny_networks()
    for name, roles in (("one", ["G_ema"]), ("all", ["G", "D", "G_ema"])):
        safetensors_files.write({role: nets[role] for role in roles}, folder / f"{name}.safetensors")
    return lambda: opened(folder / "one.safetensors", "D"), lambda: opened(folder / "all.safetensors", "D")


def file_in_folder(folder: Path) -> Any:
    written(folder / "x.pkl", G_ema=tiny.tiny_generator())
    (folder / "config.json").write_text("{}")
    return lambda: opened(folder), lambda: opened(folder / "x.pkl")


def whole_file(folder: Path) -> Any:
    safetensors_files.write({"G_ema": tiny.tiny_generator()}, folder / "whole.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "whole.safetensors").read_bytes()[:-8])
    return lambda: opened(folder / "cut.safetensors"), lambda: opened(folder / "whole.safetensors")


def newest(folder: Path) -> Any:
    path = written(folder / "network-snapshot-000000.pkl", G_ema=tiny.tiny_generator())
    return lambda: opened(folder), lambda: opened(path)


def from_a_disk(folder: Path) -> Any:
    biggan_checkpoints.save_checkpoint(folder / "here", {"G_ema": tiny_biggan.tiny_generator()})
    return lambda: pickles.open_networks("https://nowhere.invalid/G_ema.pth"), lambda: opened(folder / "here")


def single_precision(folder: Path) -> Any:
    biggan_checkpoints.save_checkpoint(folder / "here", {"G_ema": tiny_biggan.tiny_generator()})
    return lambda: opened(folder / "here", force_fp16=True), lambda: opened(folder / "here")


def single_precision_of_a_pickle(folder: Path) -> Any:
    path = written(folder / "x.pkl", G_ema=tiny_biggan.tiny_generator())
    return lambda: opened(path, force_fp16=True), lambda: opened(path)


def state_of_a_network(folder: Path) -> Any:
    G = tiny.tiny_generator()
    there = rosinality.state_dict("G_ema", G)
    torch.save({"g_ema": {**there, "style.9.layer": Foreign()}}, folder / "network.pt")
    torch.save({"g_ema": there}, folder / "state.pt")
    return lambda: opened(folder / "network.pt"), lambda: opened(folder / "state.pt")


def in_place_of(content: Callable[[bytes], bytes]) -> Case:
    """A file that stands for another; the way out puts that in its place."""
    def case(folder: Path) -> Any:
        whole = (GOLDEN / "gray32.pkl").read_bytes()
        (folder / "x.pkl").write_bytes(content(whole))

        def put_in_place() -> Any:
            (folder / "x.pkl").write_bytes(whole)
            return opened(folder / "x.pkl")

        return lambda: opened(folder / "x.pkl"), put_in_place

    return case


def without_options(folder: Path) -> Any:
    biggan_checkpoints.save_checkpoint(folder, {"G_ema": tiny_biggan.tiny_generator()})
    state = folder / "state_dict.pth"
    torch.save([1], state)

    def remove() -> Any:
        state.unlink()
        return opened(folder)

    return lambda: opened(folder), remove


def no_network(folder: Path) -> Any:
    path = written(folder / "x.pkl", G_ema=tiny.tiny_generator())
    return lambda: pickles.open_networks("http://127.0.0.1:9/x.pkl"), lambda: opened(path)


def another_discriminator(folder: Path) -> Any:
    torch.save({"state_dict": {"linear1.weight_orig": torch.zeros([1]), "linear1.bias": torch.zeros([1])}},
               folder / "D.pth")
    biggan_checkpoints.save_checkpoint(folder / "public", {"D": tiny_biggan.tiny_discriminator()})
    return lambda: opened(folder / "D.pth", "D"), lambda: opened(folder / "public", "D")


CASES: dict[str, Case] = {  # what the message says in the source → the case
    "Pass `trust_pickle` only if you trust its origin": trusting,
    "Pass `trust_pickle=True` to load it with the program text": own_text,
    "use an earlier snapshot": earlier,
    "for images of one shape do not fit another; name another pickle": another_shape,
    "convert the data with dataset_tool.py, or name another pickle": another_size,
    "export the networks with `parts=all` of export.py": all_parts,
    "is not read from such a folder, name the file itself": file_in_folder,
    "fetch or export it again": whole_file,
    "its newest network is": newest,
    "download them into one folder": from_a_disk,
    "networks have no half precision; leave out `force_fp16`": single_precision,
    "has no half precision; leave out `force_fp16`": single_precision_of_a_pickle,
    "save network.state_dict() instead of the network": state_of_a_network,
    "fetch it with 'git lfs pull'": in_place_of(lambda whole: b"version https://git-lfs.github.com/spec/v1\noid x\n"),
    "a gzip archive; unpack it first": in_place_of(gzip.compress),
    "remove the file to go without it": without_options,
    "download it and pass the local path": no_network,
    "Use a discriminator of the public BigGAN code": another_discriminator,
}


@pytest.mark.parametrize("message", CASES)
def test_the_way_out_works(message: str, tmp_path: Path) -> None:
    fails, works = CASES[message](tmp_path)
    with pytest.raises(UserError) as caught:
        fails()
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    works()


def messages() -> list[str]:
    """All texts in modules that load network files, in one piece, docstrings aside."""
    texts = []
    for path in LOADING:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            strings = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            text = "{}".join(strings)
            if WAY_OUT.search(text) and "\n" not in text and not text.endswith("."):
                texts.append(text)
    return texts


def test_no_message_names_a_way_out_that_is_not_tested() -> None:
    assert len(messages()) > 20
    pieces = [text for text in messages() if not any(known in text for known in CASES)]
    assert [text for text in pieces if not any(text in known or text in whole for known in CASES
                                               for whole in messages() if whole != text and known in whole)] == []


def test_program_text_that_needs_more_than_there_is(tmp_path: Path) -> None:
    """A whole file is not called damaged, whatever its text imports."""
    (tmp_path / "elsewhere_text.py").write_text(OWN_CLASS.replace("import torch\n", "import torch, elsewhere\n", 1))
    (tmp_path / "elsewhere.py").write_text("")
    sys.path.insert(0, str(tmp_path))
    try:
        module = importlib.import_module("elsewhere_text")
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("elsewhere", None)
    path = written(tmp_path / "x.pkl", G_ema=module.Sketcher())
    from torch_utils import persistence

    persistence._modules_by_source.pop(module.Sketcher._orig_module_src)  # as in a process that never saw it
    with pytest.raises(UserError, match=r"needs a module or a class that is not here .*'elsewhere'") as caught:
        opened(path, trust_pickle=True)
    assert "damaged" not in str(caught.value)


OTHERS = {
    "StyleGAN-XL, whose networks have another architecture": {"G_ema": "SuperresGenerator"},
    "Projected GAN or StyleGAN-XL, whose networks have": {"D": "ProjectedDiscriminator"},
    "EG3D, whose networks have another architecture": {"G_ema": "TriPlaneGenerator"},
}


@pytest.mark.parametrize("message", OTHERS)
def test_descendants_are_refused_by_name(message: str, tmp_path: Path) -> None:
    from tests.training import foreign_pickles as foreign

    ((role, name),) = OTHERS[message].items()

    def edit(meta: dict[str, Any]) -> None:
        if meta["class_name"] in ("Generator", "Discriminator"):
            meta["class_name"] = name

    network = tiny.tiny_generator() if role == "G_ema" else tiny.tiny_discriminator()
    (tmp_path / "x.pkl").write_bytes(foreign.write({role: network}, edit=edit))
    with pytest.raises(UserError, match=message) as caught:
        opened(tmp_path / "x.pkl", role)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("content", "message"), [
    ({"linear0.weight": torch.zeros([4, 4]), "blocks.0.0.deconv0.weight": torch.zeros([1]),
      "conv4.weight": torch.zeros([1])}, "a StudioGAN generator of another backbone, such as resnet or deep_conv"),
    ({"blocks.0.0.conv2d1.weight": torch.zeros([1]), "linear1.weight": torch.zeros([1])},
     "a StudioGAN discriminator has no exact counterpart"),
])
def test_other_families_of_studiogan(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save({"state_dict": content, "epoch": 1}, tmp_path / "model=G-best-weights-step=1.pth")
    with pytest.raises(UserError, match=message):
        opened(tmp_path / "model=G-best-weights-step=1.pth")


def test_studiogans_stylegans_are_read(tmp_path: Path) -> None:
    """Those are NVIDIA's networks; the state dictionary lies beside other entries."""
    G = tiny.tiny_generator()
    torch.save({"state_dict": G.state_dict(), "epoch": 1}, tmp_path / "model=G_ema-best-weights-step=1.pth")
    again = opened(tmp_path / "model=G_ema-best-weights-step=1.pth")
    z, c = tiny.latents()
    assert torch.equal(again(z, c, noise_mode="const"), G(z, c, noise_mode="const"))


def test_config_of_a_hub_names_no_pickle(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match=r"expected model\.safetensors beside config\.json, found none$"):
        opened(tmp_path)
