"""The study of recipes: its table, lengths within a budget of time, the order of work and the report."""
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import train
from benchmarks import emoji64_recipes
from benchmarks.compress import execution, recipe_pictures, recipe_report, recipe_table
from benchmarks.compress.recipe_table import CUTS, ROWS, Study
from dgl import recipes
from dnnlib.errors import UserError
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs/results"


def test_every_recipe_is_in_the_table() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    options = [option for row in ROWS for option in row.options]
    assert {f"--recipe={name}" for name in recipes.RECIPES} <= set(options)
    assert {Study(9).num_seeds(row) for row in ROWS} == {5, 2}
    known = {option for parameter in train.main.params for option in (*parameter.opts, *parameter.secondary_opts)}
    lengths = {cut: {row.name: 7 for row in ROWS} for cut in CUTS}
    jobs = emoji64_recipes.known_jobs(Study(9), lengths)
    for job in jobs:
        assert {argument.split("=")[0] for argument in job.arguments} <= known, job.name
    assert len({(job.name, job.seed) for job in jobs}) == len(jobs)
    assert {job.group for job in jobs} == set(recipe_table.groups())
    assert {name for pair in recipe_table.pairs() for name in pair} <= {job.name for job in jobs}


def test_games_have_as_many_images_and_steps_as_distillation() -> None:
    for row in ROWS:
        arguments = row.arguments("0.5", 10)
        lengths = dict(argument.split("=") for argument in arguments if "kimg" in argument)
        assert int(lengths["--kimg"]) + int(lengths.get("--game-kimg", 0)) == 10
        assert ("--batch=16" in arguments) is not row.distils  # distillation's own
        assert ("--ema-kimg=0.5" in arguments) is (row.data != "none")


def test_lengths_within_a_budget_of_time() -> None:
    used = [(0.0, 10.0), (1.0, 14.0), (2.0, 18.0), (3.0, 22.0)]
    assert recipe_table.length_within(22, used, 3) == 3
    assert recipe_table.length_within(20, used, 3) == 2
    assert recipe_table.length_within(4, used, 3) == 1  # not even its beginning fits
    assert recipe_table.length_within(30.5, used, 3) == 5
    assert recipe_table.length_within(1e6, used, 3) == 12


def test_processor_seconds_go_on_where_a_process_ended(tmp_path: Path) -> None:
    lines = [(0.016, 5), (1, 9), (2, 4), (3, 8)]  # the second process began after the second line
    text = "".join(json.dumps({"Progress/kimg": {"mean": kimg}, "Resources/cpu_sec": {"mean": seconds}}) + "\n"
                   for kimg, seconds in lines)
    (tmp_path / "stats.jsonl").write_text(text)
    assert [execution.processor_seconds(tmp_path / "stats.jsonl", kimg) for kimg in (1, 2, 3, 4)] == [9, 13, 17, None]
    (tmp_path / "old.jsonl").write_text('{"Progress/kimg": {"mean": 1}}\n')
    assert execution.processor_seconds(tmp_path / "old.jsonl", 1) is None


class FakeCommands:
    """Stands for every command line: notes it and writes what it would write. A game takes twice the time."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, shop: execution.Workshop, *words: str) -> str:
        line = " ".join(words)
        self.lines.append(line)
        flags = dict(re.findall(r"--([\w-]+)=(\S+)", line))
        if words[0] == "prune_init.py":
            Path(flags["dest"]).write_bytes(b"")
            Path(flags["dest"]).with_suffix(".cost.json").write_text("{}")
        elif words[0] == "train.py":
            self._train(flags, "--recipe=distil" in words)
        elif words[0] == "-m":
            return json.dumps({"intra_fd": 7.0}) + "\n"
        elif "agreement" in flags["metrics"]:
            return json.dumps({"results": {"agreement_psnr": 20.0}, "protocol": {}}) + "\n"
        elif words[0] == "calc_metrics.py":
            distance = float(len(self.lines))
            result = {"results": {f"fd@{Path(flags['detector']).stem}": distance}, "protocol": {"num_gen": 9}}
            return json.dumps(result) + "\n"
        return ""

    def _train(self, flags: dict[str, str], distils: bool) -> None:
        if "resume" in flags:
            folder = Path(flags["resume"])
        else:
            folder = Path(flags["outdir"], "00000-x")
            folder.mkdir(parents=True)
            (folder / "training_options.json").write_text("{}")
        with (folder / "stats.jsonl").open("w") as file:
            for kimg in range(int(flags["kimg"]) + int(flags.get("game-kimg", 0)) + 1):
                stats = {"Progress/kimg": kimg, "Resources/cpu_sec": 3 + kimg * (1 if distils else 2)}
                file.write(json.dumps({name: {"mean": value} for name, value in stats.items()}) + "\n")
                (folder / f"network-snapshot-{kimg:06d}.pkl").write_bytes(b"")
                (folder / f"fakes{kimg:06d}.png").write_bytes(b"")


def call(tmp_path: Path, *options: str, c_dim: int = 0) -> Any:
    for name in ("train.zip", "test.zip", "x.pt", "y.pt"):
        (tmp_path / name).write_bytes(b"")
    if not (tmp_path / "t.pkl").is_file():
        tiny.write_teacher(tmp_path / "t.pkl", c_dim=c_dim)
    args = [f"--out={tmp_path}/out", f"--teacher={tmp_path}/t.pkl", f"--data={tmp_path}/train.zip", "--kimg=4",
            f"--test-data={tmp_path}/test.zip", f"--detector={tmp_path}/x.pt", "--seeds=1,1", *options]
    return CliRunner().invoke(emoji64_recipes.main, args)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    monkeypatch.chdir(ROOT)
    commands = FakeCommands()
    monkeypatch.setattr(execution.Workshop, "command", lambda shop, *words: commands(shop, *words))
    return commands


def test_one_command_does_it_all_once(tmp_path: Path, fake: FakeCommands) -> None:
    result = call(tmp_path)
    assert result.output.endswith("All runs are done.\n"), result.output
    trainings = [line for line in fake.lines if line.startswith("train.py")]
    assert len(trainings) == 2 * len(ROWS) + 3  # every network within a budget of time is a snapshot of these
    assert not any("--resume" in line for line in trainings)
    lengths = emoji64_recipes.read_lengths(tmp_path / "out")
    assert lengths["half"] == {row.name: 4 if row.distils else 2 for row in ROWS}
    rows = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    by_name = {row["name"]: row for row in rows}
    assert by_name["half-ours-time"]["results"] == by_name["half-ours-images"]["results"]  # the same network
    assert by_name["separate-1of2"]["results"] == by_name["half-ours-images"]["results"]
    assert by_name["half-cagc-time"]["results"] != by_name["half-cagc-images"]["results"]
    assert (by_name["half-cagc-time"]["kimg"], by_name["half-cagc-time"]["cpu_sec"]) == (2, 7)
    assert by_name["elastic-1of4"]["network"] == "runs/elastic-4-seed0/width1of4.pkl"
    kept = sorted(path.name for path in (tmp_path / "out/runs/half-cagc-seed0/00000-x").glob("*0*.p*"))
    assert kept == ["fakes000002.png", "fakes000004.png", "network-snapshot-000002.pkl", "network-snapshot-000004.pkl"]
    fake.lines = []
    assert "All runs are done" in call(tmp_path).output
    assert fake.lines == []
    assert call(tmp_path, "--list").output.count("scored") == len(rows)


def test_a_conditional_teacher_is_scored_by_class(tmp_path: Path, fake: FakeCommands) -> None:
    result = call(tmp_path, "--only=half-ours-images,half-dgl-images", "--mirror", c_dim=3)
    assert result.output.endswith("All runs are done.\n"), result.output
    games = [line for line in fake.lines if line.startswith("train.py") and "--recipe=paper" in line]
    assert ["--cond=true --mirror=true --gamma=0.05" in line for line in games] == [True]
    rows = execution.read_rows(tmp_path / "out/results.jsonl")
    assert [row["results"]["intra_fd@x"] for row in rows] == [7, 7]
    assert "fd within classes, x ↓" in recipe_report.markdown(rows, "x")


def test_a_training_that_is_longer_within_the_time_is_resumed(tmp_path: Path, fake: FakeCommands) -> None:
    study = Study(4, 1, 1)
    (job,) = [job for job in study.by_time("half", 0, {"dgl": 9}) if job.name == "half-dgl-time"]
    assert (job.kimg, job.key, job.stretches) == (9, "half-dgl-seed0", True)
    assert "--kimg=4" in job.arguments, "a training of two stages is the same training"
    call(tmp_path, "--only=half-ours-images,half-dgl-images")
    emoji64_recipes.write_json_atomic(tmp_path / "out/lengths.json", {"half": {"dgl": 9}})
    call(tmp_path, "--only=half-dgl-time")
    assert fake.lines[-3].endswith("half-dgl-seed0/00000-x --kimg=9")


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    assert "--only: no run or group is called 'best'; --list shows them" in call(tmp_path, "--only=best").output
    assert f"--test-data: {tmp_path}/no.zip: no such file" in call(tmp_path, f"--test-data={tmp_path}/no.zip").output
    assert "expected two numbers of seeds such as 5,2, found '5'" in call(tmp_path, "--seeds=5").output


def test_findings_stay_when_the_report_is_written_again(tmp_path: Path, fake: FakeCommands) -> None:
    out = tmp_path / "out"
    call(tmp_path, "--only=teacher")
    call(tmp_path, "--report", "--name=alone")
    assert (out / "alone.md").read_text().endswith("None yet.\n"), "no pair has both sides"
    call(tmp_path, "--only=half-ours-images,half-dgl-images")
    assert call(tmp_path, "--report", "--name=x").output == f"{out}/x.md\n{out}/x.jsonl\n"
    text = (out / "x.md").read_text()
    assert "| DGL, from a slice (l1) | 1 |" in text
    assert text.count("### ") == 1, "one table of differences for each table that has both sides of a pair"
    assert "\n### Width 1/2, equal images\n\n| difference |" in text
    (out / "x.md").write_text(text.replace("Not written yet.", "Ours wins."))
    call(tmp_path, "--report", "--name=x")
    assert (out / "x.md").read_text() == text.replace("Not written yet.", "Ours wins.")


def test_the_committed_reports_are_those_of_their_rows(tmp_path: Path) -> None:
    for picture in RESULTS.glob("*recipes*.png"):
        (tmp_path / picture.name).touch()
    for path in RESULTS.glob("*recipes*.jsonl"):
        (tmp_path / f"{path.stem}.md").write_text((RESULTS / f"{path.stem}.md").read_text())
        for written in recipe_report.write(execution.read_rows(path), tmp_path, path.stem):
            assert written.read_text() == (RESULTS / written.name).read_text(), written.name


def test_pictures_show_the_same_latents(tmp_path: Path) -> None:
    teacher = Path(tiny.write_teacher(tmp_path / "teacher.pkl"))
    (tmp_path / "out/runs").mkdir(parents=True)
    student = Path(tiny.write_teacher(tmp_path / "out/runs/student.pkl"))
    names = {"reference": ("teacher", "teacher.pkl"), "half-time": ("ours", "runs/student.pkl"),
             "half-images": ("unseen", "gone.pkl")}
    rows = [{"group": group, "name": title, "title": title, "seed": seed, "network": file}
            for seed in (0, 1) for group, (title, file) in names.items()]
    (path,) = recipe_pictures.draw(rows, tmp_path / "out", teacher, tmp_path / "dest", "x")
    assert path == tmp_path / "dest/x-half-time.png"
    pixels = np.asarray(PIL.Image.open(path))
    side = pixels.shape[1] // recipe_pictures.COLUMNS
    assert pixels.shape[0] == 2 * side, "seed 1 and other tables are not shown"
    assert (pixels[:side] == pixels[side:]).all(), "networks that are equal make equal pictures"
    assert (pixels[:, :side] != pixels[:, side:2 * side]).any()
    assert recipe_pictures.caption(rows, "half-time").startswith("From top to bottom: teacher; ours. Every column")
    student.unlink()
    with pytest.raises(UserError, match=r"student\.pkl is gone; give the command of the study again"):
        recipe_pictures.draw(rows, tmp_path / "out", teacher, tmp_path / "dest", "x")
