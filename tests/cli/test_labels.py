"""--class=3, --class=0.2,0.8,0 and --class=0-2 in every command that draws; files say what their labels were."""
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import export
import gen_video
import generate
import legacy
import projector
import prune_init
import report
import style_mixing
import train
from dgl import cost
from dgl.report import labels as report_labels
from dnnlib.cli import CLASSES, LABEL_KINDS, VECTORS, class_labels, seed_latents
from dnnlib.errors import UserError
from tests import tiny
from tests.training import tiny_runs
from training.checkpoints import pickles
from training.data.images import truncated
from training.export import programs

LABEL = (0.25, 0.75, 0.0)
TEXT = "0.25,0.75,0"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same networks with three labels, by what the file says about these; "unknown" says nothing."""
    folder = tmp_path_factory.mktemp("labels")
    nets = tiny.tiny_networks(c_dim=3)
    paths = {kind: folder / f"{kind}.pkl" for kind in (*LABEL_KINDS, "unknown")}
    for kind, path in paths.items():
        pickles.save_networks(pickles.snapshot_data(
            nets, None, label_kind=None if kind == "unknown" else kind), path)
    PIL.Image.fromarray(np.full([16, 16, 3], 99, np.uint8)).save(folder / "target.png")
    paths["target"] = folder / "target.png"
    return paths


def invoke(command: Any, *args: str) -> Any:
    device = [] if command in (legacy, export) else ["--device=cpu"]
    return CliRunner().invoke(command.main, [*args, *device])


def done(command: Any, *args: str) -> str:
    result = invoke(command, *args)
    assert result.exit_code == 0, result.output
    return result.output


def refused(command: Any, *args: str) -> str:
    result = invoke(command, *args)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1
    return result.stderr.removeprefix("Error: ").strip()


def pixels(path: Path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image)


def expected(path: Path, seed: int, label: tuple[float, ...]) -> np.ndarray:
    G = pickles.open_networks(str(path))["G_ema"]
    return truncated(G(torch.from_numpy(seed_latents([seed], 16)), torch.tensor([label]), noise_mode="const"))[0]


def test_files_keep_what_labels_were(files: dict[str, Path], tmp_path: Path) -> None:
    """Through legacy.py, a slice, safetensors and a hub's folder."""
    for kind in LABEL_KINDS:
        source = files[kind]
        done(legacy, f"--source={source}", f"--dest={tmp_path / f'{kind}.pkl'}")
        done(prune_init, f"--teacher={source}", "--width=0.5", "--no-refit", "--no-latency", "--score=first",
             f"--dest={tmp_path / f'{kind}-narrow.pkl'}")
        done(export, f"--network={source}", "--format=safetensors", f"--dest={tmp_path / f'{kind}.safetensors'}")
        done(export, f"--network={source}", "--format=hub", f"--dest={tmp_path / f'{kind}-hub'}")
        for name in (f"{kind}.pkl", f"{kind}-narrow.pkl", f"{kind}.safetensors", f"{kind}-hub"):
            assert pickles.open_networks(str(tmp_path / name)).get("label_kind") == kind, name
        card = (tmp_path / f"{kind}-hub" / "README.md").read_text()
        assert ("labels one-hot [N, 3]" in card) is (kind == CLASSES)
    assert pickles.open_networks(str(files["unknown"])).get("label_kind") is None


def test_a_kind_that_there_is_none_of(tmp_path: Path) -> None:
    pickles.save_networks({**tiny.tiny_networks(c_dim=3), "label_kind": "colours"}, tmp_path / "x.pkl")
    message = refused(generate, f"--network={tmp_path / 'x.pkl'}", "--seeds=1", "--class=1", f"--outdir={tmp_path}")
    assert "label_kind: expected classes or vectors, found 'colours'" in message


def test_a_run_notes_what_its_labels_are(tmp_path: Path) -> None:
    vectors = tiny.write_data(tmp_path / "vectors")
    folder = tmp_path / "vectors"
    rows = [[f"{i}.png", [0.1 * i, 1 - 0.1 * i, 0.5]] for i in range(12)]
    (folder / "dataset.json").write_text(json.dumps({"labels": rows}))
    classes = tiny.write_data(tmp_path / "classes", num_classes=3)
    for data, kind, cond in ((str(folder), VECTORS, True), (classes, CLASSES, True), (vectors, None, False)):
        options = tiny_runs.options(data, *tiny_runs.STYLEGAN2, *(["--cond=true"] if cond else []))
        run = tiny_runs.run(tmp_path / f"run-{kind}", options, total_kimg=0.004)
        snapshot = sorted(run.glob("network-snapshot-*.pkl"))[-1]
        assert pickles.open_networks(str(snapshot)).get("label_kind") == kind
    vectors_run = sorted((tmp_path / f"run-{VECTORS}").glob("network-snapshot-*.pkl"))[-1]
    message = refused(generate, f"--network={vectors_run}", "--seeds=1", f"--outdir={tmp_path / 'out'}")
    assert message == ("--class: give the label of the images, 3 numbers: this network was trained on labels that are "
                       "vectors")
    done(generate, f"--network={vectors_run}", "--seeds=1", "--label=0.33,0.67,0.5", f"--outdir={tmp_path / 'out'}")


COMMANDS: dict[str, Callable[[dict[str, Path], Path], tuple[Any, ...]]] = {
    "generate": lambda files, out: (generate, "--seeds=1", f"--outdir={out}"),
    "style_mixing": lambda files, out: (style_mixing, "--rows=1", "--cols=2", f"--outdir={out}"),
    "gen_video": lambda files, out: (gen_video, "--seeds=0-3", "--w-frames=2", f"--output={out}.webp"),
    "projector": lambda files, out: (projector, f"--target={files['target']}", "--num-steps=1", "--detector=D",
                                     "--save-video=0", f"--outdir={out}"),
    "export": lambda files, out: (export, "--format=torch", f"--dest={out}.pt2"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_vectors_are_not_class_numbers(name: str, files: dict[str, Path], tmp_path: Path) -> None:
    command, *args = COMMANDS[name](files, tmp_path / "out")
    for text, ending in (("1", "found 1"), ("0-1", "found the range 0-1")):
        message = refused(command, f"--network={files[VECTORS]}", f"--class={text}", *args)
        assert message.startswith("--class: this network was trained on labels that are vectors, not class numbers; "
                                  "give all 3 numbers")
        assert message.endswith(ending)
    assert "classes 0 to 2, found 3" in refused(command, f"--network={files[CLASSES]}", "--class=0-3", *args)


def test_generate_and_style_mixing(files: dict[str, Path], tmp_path: Path) -> None:
    for kind in (*LABEL_KINDS, "unknown"):
        done(generate, f"--network={files[kind]}", "--seeds=1", f"--class={TEXT}", f"--outdir={tmp_path / kind}")
        np.testing.assert_array_equal(pixels(tmp_path / kind / "seed0001.png"), expected(files[kind], 1, LABEL))
    for text, prefix, label in (("2", "", (0.0, 0.0, 1.0)), (TEXT, "", LABEL), ("1-2", "class2-", (0.0, 0.0, 1.0))):
        out = tmp_path / f"mixed {text}"
        done(style_mixing, f"--network={files[CLASSES]}", "--rows=1", "--cols=2", f"--class={text}", f"--outdir={out}")
        np.testing.assert_array_equal(pixels(out / f"{prefix}1-1.png"), expected(files[CLASSES], 1, label))
        assert (out / f"{prefix}grid.png").is_file()
    assert len(list(out.iterdir())) == 2 * 4


def test_videos_lead_through_classes(files: dict[str, Path], tmp_path: Path) -> None:
    for text, labels in (("0-1", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)] * 2), (TEXT, [LABEL] * 4)):
        path = tmp_path / "walk.webp"
        done(gen_video, f"--network={files[CLASSES]}", "--seeds=0-3", "--w-frames=2", f"--class={text}",
             f"--output={path}")
        with PIL.Image.open(path) as video:
            for i, label in enumerate(labels):
                video.seek(2 * i)
                np.testing.assert_array_equal(np.asarray(video.convert("RGB")), expected(files[CLASSES], i, label))


def test_projection_takes_the_class_that_comes_closest(files: dict[str, Path], tmp_path: Path) -> None:
    """The target is an image of class 2; each class takes the same random numbers."""
    PIL.Image.fromarray(expected(files[CLASSES], 3, (0.0, 0.0, 1.0))).save(tmp_path / "target.png")
    common = [f"--network={files[CLASSES]}", f"--target={tmp_path / 'target.png'}", "--num-steps=3", "--detector=D",
              "--save-video=0"]
    text = done(projector, *common, "--class=0-2", f"--outdir={tmp_path / 'all'}")
    distances = [float(line.split()[-1]) for line in text.splitlines() if line.startswith("class")]
    assert len(distances) == 3
    best = int(np.argmin(distances))
    done(projector, *common, f"--class={best}", f"--outdir={tmp_path / 'one'}")
    with np.load(tmp_path / "all" / "projected_w.npz") as a, np.load(tmp_path / "one" / "projected_w.npz") as b:
        np.testing.assert_array_equal(a["w"], b["w"])
    done(projector, *common, f"--class={TEXT}", f"--outdir={tmp_path / 'mixed'}")


@torch.no_grad()
def test_programs_of_chosen_labels() -> None:
    """One label is no input any more; of several, the input says which, or how they are mixed."""
    G = tiny.tiny_generator(c_dim=3, resolution=4)
    z, psi = torch.randn([2, 16]), torch.tensor(0.5)
    for choice, given, label in (
        (2, (), [0.0, 0.0, 1.0]),
        (LABEL, (), list(LABEL)),
        (range(1, 3), (torch.tensor([[0.5, 0.5]] * 2),), [0, 0.5, 0.5]),
    ):
        choices = torch.cat([torch.from_numpy(array) for array in class_labels(3, choice).values()])
        program = programs.generator_program(G, choices=choices)
        assert [item.name for item in program.inputs] == ["z", *["label"] * len(given), "truncation"]
        expected = G(z, torch.tensor([label] * 2), truncation_psi=0.5, noise_mode="const")
        torch.testing.assert_close(program(z, *given, psi), expected, atol=1e-5, rtol=1e-5)
        assert torch.isfinite(programs.trace(program).module()(z, *given, psi)).all()
    with pytest.raises(UserError, match="class_idx: a program that takes w has no label; use `input=z`"):
        programs.generator_program(G, source="w", choices=choices)


def test_export_of_chosen_labels(files: dict[str, Path], tmp_path: Path) -> None:
    small = tiny.write_teacher(tmp_path / "small.pkl", c_dim=3, resolution=4)
    text = done(export, f"--network={small}", "--format=torch", "--class=0-1", f"--dest={tmp_path / 'x.pt2'}")
    assert "checked" in text
    message = refused(export, f"--network={files[CLASSES]}", "--format=hub", "--class=1", f"--dest={tmp_path / 'hub'}")
    assert message == "--class: has no meaning for --format=hub, only for onnx, torch, web; leave it out"
    message = refused(export, f"--network={files[CLASSES]}", "--format=onnx", "--class=1", "--verify-data=x",
                      f"--dest={tmp_path / 'x.onnx'}")
    assert "and with all classes" in message


def test_rows_of_a_report(files: dict[str, Path], tmp_path: Path) -> None:
    G = pickles.open_networks(str(files[CLASSES]))["G_ema"]
    assert report_labels.choices(G, None, CLASSES, None) is None
    assert report_labels.choices(tiny.tiny_generator(), None, None, None) is None
    rows = {text: report_labels.choices(G, choice, kind, None) for text, choice, kind in (
        ("1", 1, CLASSES), ("1,2", range(1, 3), CLASSES), (TEXT, LABEL, VECTORS))}
    assert [list(chosen) for chosen in rows.values()] == [["1"], ["1", "2"], [TEXT]]
    with pytest.raises(UserError, match="class_idx: give the label of the images, 3 numbers"):
        report_labels.choices(G, None, VECTORS, None)
    data = Path(tiny.write_data(tmp_path / "data")).with_suffix("")
    (data / "dataset.json").write_text(json.dumps({"labels": [[f"{i}.png", [i, 0.5, 1]] for i in range(12)]}))
    chosen = report_labels.choices(G, None, VECTORS, str(data))
    assert chosen is not None
    assert list(chosen) == ["of image 0", "of image 4", "of image 7", "of image 11"]
    assert chosen["of image 11"].tolist() == [[9.0, 0.5, 1.0]]  # of 9.png, the last by name
    (data / "dataset.json").write_text(json.dumps({"labels": [[f"{i}.png", [i, 0.5]] for i in range(12)]}))
    with pytest.raises(UserError, match=r"data: expected labels of 3 numbers, found \[2\]"):
        report_labels.choices(G, None, VECTORS, str(data))


def test_a_report_of_one_label(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MEASURING_SEC", 0.001)
    monkeypatch.setattr("dgl.report.modes.IMAGES", 64)
    monkeypatch.setattr("dgl.report.images.PAIRS", 16)
    done(report, f"--teacher={files[VECTORS]}", f"--network={files[VECTORS]}", f"--class={TEXT}",
         f"--dest={tmp_path / 'x.html'}")
    assert f"A row for each of the labels {TEXT}." in (tmp_path / "x.html").read_text()
    message = refused(report, f"--teacher={files[VECTORS]}", f"--network={files[VECTORS]}", "--class=0-1",
                      f"--dest={tmp_path / 'y.html'}")
    assert message.startswith("--class: this network was trained on labels that are vectors")


def test_distillation_of_a_network_of_vectors_needs_their_data_set(files: dict[str, Path], tmp_path: Path) -> None:
    result = CliRunner().invoke(train.main, ["--cfg=dgl", f"--teacher={files[VECTORS]}", "--width=0.5", "--dry-run",
                                             "--no-estimate", f"--outdir={tmp_path}", "--device=cpu"])
    assert "was trained on labels that are vectors, which only a data set has; pass --data" in result.stderr
    data = Path(tiny.write_data(tmp_path / "data")).with_suffix("")
    (data / "dataset.json").write_text(json.dumps({"labels": [[f"{i}.png", [7, 0.5, 1]] for i in range(12)]}))
    options = tiny_runs.options(str(data), "--cfg=dgl", f"--teacher={files[VECTORS]}", "--width=0.5", "--batch=4",
                                "--workers=0", "--kimg=1", "--cond=true")
    options["loss_kwargs"].update(distil_kimg=0.004)
    drawn_labels: list[Any] = []
    from dgl.distillation import Distillation

    drawn = Distillation._latents
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distillation, "_latents",
                      lambda self, step: drawn_labels.append(drawn(self, step)) or drawn_labels[-1])
        tiny_runs.run(tmp_path / "run", options, total_kimg=0.004)
    assert drawn_labels
    assert all((c == torch.tensor([7, 0.5, 1])).all() for _, c in drawn_labels)
