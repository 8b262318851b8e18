"""The recipes: their options as train.py resolves them, what replaces them, and a tick of training with each."""
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import train
from dgl import kd, recipes, scores
from dgl.bases import BASES
from dgl.scores import content, diversity, slimming
from tests import tiny, tiny_biggan
from tests.training import tiny_runs
from training.checkpoints import pickles


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "teacher": tiny.write_teacher(folder / "teacher.pkl"),
        "biggan": tiny_biggan.write_teacher(folder / "biggan.pkl"),
        "data": tiny.write_data(folder / "data"),
    }


def resolved(paths: dict[str, str], *args: str, teacher: str = "teacher") -> dict[str, Any]:
    command = ["--cfg=dgl", f"--teacher={paths[teacher]}", "--width=0.5", "--outdir=/tmp", "--dry-run",
               "--no-estimate", *args]
    result = CliRunner().invoke(train.main, command)
    assert result.exit_code == 0, result.output
    options = json.loads(result.stdout.split("Resolved options:\n")[1].split("\n\nNothing was started")[0])
    assert isinstance(options, dict)
    return options


def with_data(name: str, paths: dict[str, str]) -> list[str]:
    row = recipes.RECIPES[name]
    needs_data = not row.distils and "data" not in row.options
    return [f"--recipe={name}", *([f"--data={paths['data']}", "--cond=0"] if needs_data else [])]


# recipe → (initializer, loss) as the table in docs/recipes.md promises them; a few words on the data set
EXPECTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "distil": ({"init": "slice", "score": "reconstruct", "refine": "none", "refit": True},
               {"kd": {"rgb": 1, "feature": 1}, "distil_kimg": 50}),
    "paper": ({"init": "slice", "score": "l1", "refine": "none"}, {"dgl_weight": 0.1, "stage1_kimg": 0}),
    "cagc": ({"init": "slice", "score": "content", "refine": "none"},
             {"dgl_weight": 0, "kd": {"rgb": 3, "feature": 3}}),
    "stylekd": ({"init": "mapping", "d_init": "teacher"},
                {"dgl_weight": 0, "keep_mapping": True, "kd": {"rgb": 3, "feature": 3, "latent": 30}}),
    "dcp": ({"init": "slice", "score": "diversity", "refine": "none"},
            {"dgl_weight": 0, "kd": {"rgb": 3, "feature": 3, "latent": 30}}),
    "svs": ({"init": "slice", "score": "diversity", "refine": "svs"},
            {"dgl_weight": 0, "kd": {"rgb": 3, "feature": 3, "latent": 30}}),
    "slimming": ({"init": "slice", "score": "slimming", "refine": "none"}, {"dgl_weight": 0, "kd": {"feature": 1}}),
    "nickel": ({"init": "slice", "score": "l1", "refine": "none"},
               {"dgl_weight": 1, "teacher_update": True, "kd": {"moments": 1}}),
    "mobile": ({"init": "mapping", "d_init": "teacher"},
               {"dgl_weight": 0, "keep_mapping": True, "kd": {"rgb": 1, "feature": 1}}),
}


@pytest.mark.unrecorded
@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_row_is_what_it_says(name: str, paths: dict[str, str]) -> None:
    options = resolved(paths, *with_data(name, paths))
    init, loss = EXPECTED[name]
    assert options["init_kwargs"].items() >= init.items()
    assert options["loss_kwargs"].items() >= loss.items()
    for absent in {"kd", "keep_mapping", "distil_kimg"} - loss.keys():
        assert absent not in options["loss_kwargs"]
    assert options["loss_kwargs"]["teacher_update"] is (name == "nickel")
    assert options["init_kwargs"].get("refit", False) is (name == "distil")
    is_generated = options["training_set_kwargs"]["class_name"] == "dgl.teacher_images.TeacherImages"
    assert is_generated is (name in ("distil", "mobile"))


@pytest.mark.parametrize(("args", "flag", "source"), [
    (["--recipe=cagc", "--guidance=heads"], "--guidance", " of --recipe=cagc"),
    (["--recipe=dcp", "--dgl-ramp=3"], "--dgl-ramp", " of --recipe=dcp"),
    (["--recipe=slimming", "--teacher-update"], "--teacher-update", " of --recipe=slimming"),
    (["--recipe=paper", "--dgl-weight=0", "--teacher-weights=1"], "--teacher-weights", ""),
    (["--game-kimg=1", "--dgl-weight=0", "--guidance=ratio"], "--guidance", ""),
])
def test_options_of_a_term_without_weight(args: list[str], flag: str, source: str, paths: dict[str, str]) -> None:
    command = ["--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--data=teacher", "--dry-run", *args]
    result = CliRunner().invoke(train.main, command)
    assert result.exit_code == 2
    assert result.stderr.strip().splitlines()[-1] == (
        f"Error: {flag}: has no effect with the --dgl-weight=0{source}; pass another --dgl-weight, such as 0.1")
    if flag != "--teacher-weights":
        given = [arg for arg in args if arg != "--dgl-weight=0"]
        assert resolved(paths, "--data=teacher", "--dgl-weight=0.1", *given)["loss_kwargs"]["dgl_weight"] == 0.1


def test_every_value_of_a_row_is_one_of_its_option() -> None:
    parameters = {parameter.name for parameter in train.main.params}
    for name, row in recipes.RECIPES.items():
        assert row.options.keys() <= parameters, name
        assert row.options.get("score", "l1") in scores.NAMES
        assert {term for term, _ in row.options.get("kd", ())} <= set(kd.names())
        assert bool(row.departs) is (name != "distil")
    assert {family for row in recipes.RECIPES.values() for family in row.families} == {
        base.family for base in BASES.values()}


@pytest.mark.unrecorded
def test_what_is_given_replaces_the_row(paths: dict[str, str]) -> None:
    options = resolved(paths, *with_data("svs", paths), "--score=first", "--refine=none", "--dgl-weight=0.5",
                       "--kd=rgb=2")
    assert (options["init_kwargs"]["score"], options["init_kwargs"]["refine"]) == ("first", "none")
    assert options["loss_kwargs"]["kd"] == {"rgb": 2}
    assert options["loss_kwargs"]["dgl_weight"] == 0.5
    options = resolved(paths, *with_data("nickel", paths), "--no-teacher-update", "--init=mapping", "--ema-kimg=0.5")
    assert options["ema_kimg"] == 0.5
    assert options["loss_kwargs"]["teacher_update"] is False
    options = resolved(paths, "--recipe=mobile", f"--data={paths['data']}", "--cond=0", "--init=slice",
                       "--no-keep-mapping")
    assert options["training_set_kwargs"]["path"] == paths["data"]
    assert options["init_kwargs"]["init"] == "slice"
    assert "keep_mapping" not in options["loss_kwargs"]
    # A start that has no channels to choose leaves the row's choice of channels out.
    options = resolved(paths, *with_data("svs", paths), "--init=mapping")
    assert options["init_kwargs"]["refine"] == "none"


def test_recipes_of_networks_without_classes_of_channels(paths: dict[str, str]) -> None:
    """A BigGAN has no w: recipes that need it are refused, the others apply."""
    options = resolved(paths, "--recipe=cagc", "--data=teacher", teacher="biggan")
    assert options["init_kwargs"]["score"] == "content"
    for name in ("dcp", "mobile"):
        args = ["--cfg=dgl", f"--teacher={paths['biggan']}", "--width=0.5", f"--recipe={name}", "--data=teacher"]
        result = CliRunner().invoke(train.main, args)
        assert f"--recipe: {name} cannot be given together with --cfg=dgl-biggan" in result.output


@pytest.mark.parametrize(("args", "message"), [
    (["--recipe=cagc", "--data=teacher", "--init=scratch"],
     "--init: the distillation terms of --recipe=cagc compare images of the same w, but scratch gives the student a w "
     "of its own; start from a slice or a student's pickle, or pass --init=mapping, or --recipe=paper"),
    (["--recipe=dcp", "--data=teacher", "--distil-lr=0.1"],
     "--distil-lr: cannot be given together with --recipe=dcp"),
    (["--recipe=nickel", "--data=teacher", "--batch=4", "--batch-gpu=1"],
     "--kd: moments compares the images of one pass with each other, but a pass has only one"),
    (["--keep-mapping"], "--keep-mapping: applies to adversarial training, which this run does not have"),
    (["--recipe=dcp"], "--data: --recipe=dcp is adversarial training, which needs images; pass --data=PATH, or "
     "--data=teacher for the teacher's own"),
    (["--recipe=stylekd", "--data=teacher", "--score=l1"],
     "--score: can only be given together with --init=slice"),
])
def test_mistakes_are_one_line(args: list[str], message: str, paths: dict[str, str]) -> None:
    command = ["--cfg=dgl", f"--teacher={paths['teacher']}", "--width=0.5", "--dry-run", "--no-estimate", *args]
    result = CliRunner().invoke(train.main, command)
    assert result.exit_code == 2
    assert message in result.output.replace("\n", " ")


@pytest.mark.parametrize("name", [name for name in recipes.RECIPES if name not in ("distil", "paper", "svs")])
def test_a_tick_of_training(name: str, paths: dict[str, str], tmp_path: Path,
                            monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (content, diversity, slimming):
        monkeypatch.setattr(module, "NUM_SAMPLES", 8)
    args = [argument for argument in with_data(name, paths) if not argument.startswith("--data=")]
    data = "teacher" if name == "mobile" else paths["data"]
    teacher = [f"--teacher={paths['teacher']}", "--width=0.5", "--batch=4", "--workers=0", "--cfg=dgl"]
    config = tiny_runs.options(data, *teacher, *args, total_kimg=0.016)
    folder = tiny_runs.run(tmp_path / "run", config)
    records = tiny_runs.records(folder)
    for term in config["loss_kwargs"]["kd"]:
        assert records[-1][f"Loss/G/kd_{term}"]["num"] > 0
    assert ("Loss/G/dgl" in records[-1]) is (name == "nickel")
    assert ("Loss/teacher/D/loss" in records[-1]) is (name == "nickel")
    nets = pickles.open_networks(str(sorted(folder.glob("*.pkl"))[-1]))
    first = pickles.open_networks(paths["teacher"])
    is_kept = torch.equal(nets["G"].mapping.fc0.weight, first["G"].mapping.fc0.weight)
    assert is_kept is (name in ("stylekd", "mobile"))
    assert nets["G"].synthesis.b8.conv1.weight.shape[0] == 8
    if name in ("stylekd", "mobile"):
        noise = [dict(net.synthesis.named_buffers())["b8.conv1.noise_const"] for net in (nets["G"], first["G"])]
        assert torch.equal(*noise)


def as_flags(options: Mapping[str, Any]) -> str:
    """Options as they would be given."""
    words = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if name == "kd":
            words += [f"{flag}={term}" + ("" if weight == 1 else f"={weight:g}") for term, weight in value]
        else:
            words.append(flag if value is True else f"{flag}={value:g}" if isinstance(value, float) else
                         f"{flag}={value}")
    return f"`{' '.join(words)}`" if words else "none: the defaults"


def test_the_document_is_that_of_the_table() -> None:
    """docs/recipes.md has a section for every row: paper, what it does, options, what is different."""
    text = (Path(__file__).parents[2] / "docs/recipes.md").read_text(encoding="utf-8")
    sections = {section.partition("\n")[0]: " ".join(section.split()) for section in text.split("\n### ")[1:]}
    for name, row in recipes.RECIPES.items():
        section = sections[f"`{name}`"]
        assert row.paper in section
        assert row.summary in section
        assert as_flags(row.options) in section
        assert row.departs in section
    assert sections.keys() == {f"`{name}`" for name in recipes.RECIPES}
