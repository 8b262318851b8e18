"""Files that hold a part of the networks, or hold them in another container: every command fails for what it needs."""
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner, Result

import calc_metrics
import generate
import legacy
import projector
import prune_init
import style_mixing
from tests import tiny
from tests.helpers import GOLDEN
from tests.training.test_networks_stylegan3 import tiny as tiny_stylegan3
from training.checkpoints import pickles
from training.checkpoints.parts import MissingPart, Networks


class ForeignDiscriminator(torch.nn.Module):
    """Of a class that network files do not need."""


FOREIGN = f"{ForeignDiscriminator.__module__}.ForeignDiscriminator"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same networks in several files."""
    folder = tmp_path_factory.mktemp("parts")
    nets = pickles.snapshot_data(tiny.tiny_networks(), {"path": "somewhere"})
    whole = {key: nets[key] for key in ("G", "D", "G_ema")}
    contents: dict[str, Any] = {
        "whole": nets, "gema_only": {"G_ema": nets["G_ema"]}, "d_none": {**whole, "D": None},
        "foreign": {**whole, "D": ForeignDiscriminator(), "progress": {"kimg": 5}}, "bare": nets["G_ema"],
    }
    paths = {}
    for name, content in contents.items():
        paths[name] = folder / f"{name}.pkl"
        pickles.save_networks(content, paths[name])
    for name, content in (("zip", nets), ("zip_of_module", nets["G_ema"])):
        paths[name] = folder / f"{name}.pth"
        torch.save(content, paths[name])
    paths["old"] = folder / "old.pt"
    torch.save(nets, paths["old"], _use_new_zipfile_serialization=False)
    PIL.Image.fromarray(np.full([16, 16, 3], 99, np.uint8)).save(folder / "target.png")
    paths["target"] = folder / "target.png"
    return paths


def invoke(command: Any, *args: str) -> Result:
    return CliRunner().invoke(command.main, [*args, "--device=cpu"] if command is not legacy else [*args])


def pixels(folder: Path) -> bytes:
    with PIL.Image.open(folder / "seed0001.png") as image:
        return image.tobytes()


@pytest.mark.parametrize("name", ["gema_only", "d_none", "foreign", "bare", "zip", "zip_of_module", "old"])
def test_the_averaged_generator_is_all_that_images_need(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    for source in ("whole", name):
        result = invoke(generate, f"--network={files[source]}", "--seeds=1", f"--outdir={tmp_path / source}")
        assert result.exit_code == 0, result.output
    assert pixels(tmp_path / name) == pixels(tmp_path / "whole")
    mixed = invoke(style_mixing, f"--network={files[name]}", "--rows=1", "--cols=2", f"--outdir={tmp_path / 'mixed'}")
    assert mixed.exit_code == 0, mixed.output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gema_only", "the pickle holds no D, which is needed here; found: G_ema"),
        ("d_none", "the pickle holds no D, which is needed here; found: G, G_ema"),
        ("foreign", f"D: refused: the file names {FOREIGN}, which no network pickle needs. Pass --trust-pickle"),
        ("bare", "the pickle holds no D, which is needed here; found: G_ema"),
    ],
)
def test_slicing_needs_the_discriminator_for_a_narrow_one(
    name: str, message: str, files: dict[str, Path], tmp_path: Path
) -> None:
    common = [f"--teacher={files[name]}", "--width=0.5", "--no-refit", "--no-latency", f"--dest={tmp_path / 'x.pkl'}"]
    result = invoke(prune_init, *common, "--d-width=0.5")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: --teacher: {files[name]}: {message}")
    assert len(result.stderr.splitlines()) == 1
    result = invoke(prune_init, *common)
    assert result.exit_code == 0, result.output
    assert "Note: the teacher's file holds no discriminator that can be read, so the student has none" in result.stderr
    student = pickles.open_networks(str(tmp_path / "x.pkl"))
    assert "D" not in student
    assert student["G_ema"].synthesis.b4.const.shape[0] == 8


def test_agreement_and_projection_by_a_detector_need_no_discriminator(files: dict[str, Path], tmp_path: Path) -> None:
    from tests.metrics.toys import write_detector

    network = files["gema_only"]
    result = invoke(calc_metrics, f"--network={network}", f"--teacher={network}", "--metrics=agreement", "--num-gen=4")
    assert result.exit_code == 0, result.output
    assert "agreement_psnr" in result.stdout
    assert "distance@D" not in result.stdout
    detector = write_detector(tmp_path / "lpips.pt")
    result = invoke(projector, f"--network={network}", f"--target={files['target']}", "--num-steps=1",
                    f"--detector={detector}", "--save-video=0", f"--outdir={tmp_path / 'out'}")
    assert result.exit_code == 0, result.output


def test_what_is_trusted_is_executed_only_for_what_cannot_be_read(tmp_path: Path) -> None:
    """So a file whose program text needs another code base loads with --trust-pickle as it does without."""
    from tests.training import foreign_pickles as foreign

    (tmp_path / "x.pkl").write_bytes(foreign.write(tiny.tiny_networks(), edit=foreign.without_source))
    for more in ([], ["--trust-pickle"]):
        result = invoke(generate, f"--network={tmp_path / 'x.pkl'}", "--seeds=1", f"--outdir={tmp_path / 'out'}", *more)
        assert result.exit_code == 0, result.output


def test_the_way_out_that_the_refusal_names_works(files: dict[str, Path], tmp_path: Path) -> None:
    result = invoke(generate, f"--network={files['foreign']}", "--seeds=1", f"--outdir={tmp_path / 'a'}",
                    "--trust-pickle")
    assert result.exit_code == 0, result.output


def test_projection_by_the_discriminator_needs_one(files: dict[str, Path], tmp_path: Path) -> None:
    result = invoke(projector, f"--network={files['gema_only']}", f"--target={files['target']}", "--num-steps=1",
                    "--detector=D", "--save-video=0", f"--outdir={tmp_path / 'out'}")
    assert result.exit_code == 1
    assert "the pickle holds no D, which is needed here; found: G_ema" in result.stderr


def test_rewriting_says_what_is_left_out(files: dict[str, Path], tmp_path: Path) -> None:
    result = invoke(legacy, f"--source={files['foreign']}", f"--dest={tmp_path / 'new.pkl'}")
    assert result.exit_code == 0, result.output
    warnings = result.stderr.splitlines()
    assert warnings[0].startswith(f"Warning: left out: {files['foreign']}: D: refused: the file names {FOREIGN}")
    assert warnings[1] == "Warning: left out: progress; only networks and the data set's options are rewritten"
    again = pickles.open_networks(str(tmp_path / "new.pkl"))
    assert "D" not in again
    original = pickles.open_networks(str(files["whole"]))
    assert torch.equal(again["G"].synthesis.b4.const, original["G"].synthesis.b4.const)


def test_rosinality_there_and_back(files: dict[str, Path], tmp_path: Path) -> None:
    for source, dest, layout in ((files["whole"], tmp_path / "x.pt", "rosinality"), (tmp_path / "x.pt",
                                 tmp_path / "y.pkl", "pickle")):
        result = invoke(legacy, f"--source={source}", f"--dest={dest}", f"--format={layout}")
        assert result.exit_code == 0, result.output
    first, last = (pickles.open_networks(str(path))["G_ema"].state_dict() for path in (files["whole"],
                                                                                      tmp_path / "y.pkl"))
    assert all(torch.equal(first[name], tensor) for name, tensor in last.items())


@pytest.mark.parametrize(
    ("source", "dest", "message"),
    [
        ("whole", "x.pkl", "--dest: expected a name ending in .pt with --format=rosinality, found "),
        ("sg3t64", "x.pt", "G_ema cannot be written in rosinality's layout: it is a training.networks_stylegan3."),
    ],
)
def test_what_rosinality_cannot_hold(
    source: str, dest: str, message: str, files: dict[str, Path], tmp_path: Path
) -> None:
    path = files.get(source, GOLDEN / f"{source}.pkl")
    result = invoke(legacy, f"--source={path}", f"--dest={tmp_path / dest}", "--format=rosinality")
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / dest).exists()


@pytest.mark.parametrize("name", ["rosinality_64.pt", "cagc_64_nonuniform.pth", "sg3t64.pkl", "sg3r32.pkl"])
def test_other_peoples_files_make_images(name: str, tmp_path: Path) -> None:
    label = ["--class=1"] if name == "sg3r32.pkl" else []
    result = invoke(generate, f"--network={GOLDEN / name}", "--seeds=1", f"--outdir={tmp_path}", *label)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "seed0001.png").exists()
    mixed = invoke(style_mixing, f"--network={GOLDEN / name}", "--rows=1", "--cols=2", "--styles=0-3,9", *label,
                   f"--outdir={tmp_path / 'mixed'}")
    assert mixed.exit_code == 0, mixed.output


def test_projecting_into_stylegan3(tmp_path: Path) -> None:
    PIL.Image.fromarray(np.full([64, 64, 3], 99, np.uint8)).save(tmp_path / "target.png")
    result = invoke(projector, f"--network={GOLDEN / 'sg3t64.pkl'}", f"--target={tmp_path / 'target.png'}",
                    "--num-steps=2", "--detector=D", "--save-video=0", f"--outdir={tmp_path / 'out'}")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "out" / "projected_w.npz") as data:
        assert data["w"].shape == (1, 16, 24)


def test_slicing_stylegan3(tmp_path: Path) -> None:
    G = tiny_stylegan3(num_layers=3, conv_kernel=1, use_radial_filters=True, c_dim=4).float().eval()
    nets = {"G": G, "D": tiny.tiny_discriminator(c_dim=4, resolution=G.img_resolution), "G_ema": G}
    pickles.save_networks(pickles.snapshot_data(nets, None), tmp_path / "wide.pkl")
    result = invoke(prune_init, f"--teacher={tmp_path / 'wide.pkl'}", "--width=0.5", f"--dest={tmp_path / 'x.pkl'}",
                    "--no-latency")
    assert result.exit_code == 0, result.output
    assert "fewer MACs" in result.stdout
    student = pickles.open_networks(str(tmp_path / "x.pkl"))["G_ema"]
    assert student.synthesis.input.channels == G.synthesis.input.channels // 2
    assert student(torch.randn(1, G.z_dim), torch.eye(4)[:1]).isfinite().all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"GAN": {}, "version": "1"}, "this file is of lucidrains' stylegan2-pytorch, whose networks have another"),
        ({"params": {}, "ckpt": {}}, "this file is of MobileStyleGAN, whose networks have another architecture"),
    ],
)
def test_other_families_are_refused_by_name(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    result = invoke(generate, f"--network={tmp_path / 'x.pt'}", "--seeds=1", f"--outdir={tmp_path / 'out'}")
    assert result.exit_code == 1
    assert message in result.stderr


def test_parts_are_built_once_and_only_when_asked_for() -> None:
    built = []

    def build(role: str, value: Any) -> Any:
        built.append(role)
        return value

    G, G_ema = torch.nn.Identity(), torch.nn.Identity()
    nets = Networks("x.pkl", {"G": G, "D": None, "G_ema": G_ema}, build, ("progress",))
    assert nets["G_ema"] is nets["G_ema"] is G_ema
    assert built == ["G_ema"]
    assert nets.get("D", "none") == "none"
    assert {**nets} == {"G": G, "G_ema": G_ema, "training_set_kwargs": None, "augment_pipe": None}
    with pytest.raises(MissingPart, match=r"^x\.pkl: the pickle holds no D, .*; found: G, G_ema, progress$"):
        nets["D"]
