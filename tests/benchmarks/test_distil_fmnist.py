"""The experiments with distillation: their table, the order of work and the report."""
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import train
from benchmarks import distil_fmnist
from benchmarks.compress import distil_report, distil_table, execution, report

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs/results"


def test_the_table_has_what_was_promised() -> None:
    seeds: dict[str, set[int]] = {}
    for job in distil_table.jobs():
        seeds.setdefault(job.name, set()).add(job.seed)
    for name in ("half-distil25", "half-distil50", "quarter-distil50"):
        assert len(seeds[name]) == 5
    assert {job.group for job in distil_table.jobs()} == set(distil_table.GROUPS)
    keys = [job.key for job in distil_table.jobs()]
    assert len(keys) == len(set(keys))
    named = {name for pair in distil_report.pairs() for name in pair}
    assert named <= seeds.keys()


def test_train_knows_the_options_of_every_row() -> None:
    known = {option for parameter in train.main.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for job in distil_table.jobs():
        if job.kimg:
            assert {argument.split("=")[0] for argument in job.arguments} <= known, job.name


class FakeCommands:
    """Stands for every command line: notes it and writes what it would write."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, shop: execution.Workshop, *words: str) -> str:
        self.lines.append(" ".join(words))
        flags = dict(re.findall(r"--([\w-]+)=(\S+)", self.lines[-1]))
        if words[0] == "dataset_tool.py":
            Path(flags["dest"]).write_bytes(b"")
        elif words[0] == "prune_init.py":
            Path(flags["dest"]).write_bytes(b"")
            Path(flags["dest"]).with_suffix(".cost.json").write_text("{}")
        elif words[0] == "train.py":
            folder = Path(flags["outdir"], "00000-x")
            folder.mkdir(parents=True)
            (folder / "training_options.json").write_text('{"provenance": {"command": ["a"], "commit": "abc"}}')
            kimg = int(flags["kimg"]) + int(flags.get("game-kimg", 0))
            stats = {"Progress/kimg": {"mean": kimg}, "Timing/sec_per_kimg": {"mean": 7.0}}
            (folder / "stats.jsonl").write_text(json.dumps(stats) + "\n")
            (folder / f"network-snapshot-{kimg:06d}.pkl").write_bytes(b"")
        elif "agreement" in flags["metrics"]:
            return json.dumps({"results": {"agreement_psnr": 20.0}, "protocol": {}}) + "\n"
        else:
            result = {"results": {f"fd@{Path(flags['detector']).stem}": 3.5}, "protocol": {"num_gen": 9, "num_real": 8}}
            return json.dumps(result) + "\n"
        return ""


def call(tmp_path: Path, *options: str) -> Any:
    for name in ("train.gz", "x.pt", "y.pt"):
        (tmp_path / name).write_bytes(b"")
    args = [f"--out={tmp_path}/out", f"--train-data={tmp_path}/train.gz", f"--detector={tmp_path}/x.pt", *options]
    return CliRunner().invoke(distil_fmnist.main, args)


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    fake = FakeCommands()
    monkeypatch.setattr(execution.Workshop, "command", lambda shop, *words: fake(shop, *words))
    only = "--only=teacher,half-l1-plain,half-distil5-seed0,half-game-teacher-0.0025-seed0"
    result = call(tmp_path, only)
    assert result.output.endswith("All runs are done.\n"), result.output
    trainings = [line for line in fake.lines if line.startswith("train.py")]
    assert ["--data=" in line for line in trainings] == [False, True]  # the first is distillation alone
    assert [line.split()[0] for line in fake.lines].count("prune_init.py") == 1
    rows = [json.loads(line) for line in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert [row["kimg"] for row in rows] == [0, 0, 5, 35]
    assert all(row["results"] == {"fd@x": 3.5, "agreement_psnr": 20.0} for row in rows)
    assert rows[2]["provenance"] == {"commit": "abc"}
    assert str(tmp_path) not in (tmp_path / "out/results.jsonl").read_text()
    fake.lines = []
    call(tmp_path, only)
    assert fake.lines == []
    call(tmp_path, only, f"--detector={tmp_path}/y.pt")  # a further detector scores what is there, without agreement
    assert [re.findall(r"--detector=\S*/(.)\.pt", line) for line in fake.lines] == [["y"]] * 4
    assert "scored" in call(tmp_path, only, "--list").output


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    result = call(tmp_path, "--only=best")
    assert "--only: no run or group is called 'best'; --list shows them" in result.stderr
    result = call(tmp_path, f"--test-data={tmp_path}/none.gz")
    assert f"--test-data: {tmp_path}/none.gz: no such file" in result.stderr


def test_smallest_effect_is_found_in_four_of_five_cases() -> None:
    import numpy as np
    from scipy import stats

    random = np.random.RandomState(0)
    differences = random.randn(5)
    effect = report.smallest_effect(list(differences))
    assert effect is not None
    assert report.smallest_effect([1.0]) is None
    effect /= differences.std(ddof=1)  # in standard deviations, of which the power is known by simulation
    samples = random.randn(20000, 5) + effect
    result = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert math.isclose(result.mean(), 0.8, abs_tol=0.06)


def test_the_committed_report_is_that_of_its_rows(tmp_path: Path) -> None:
    rows = execution.read_rows(RESULTS / "distil_fmnist.jsonl")
    for path in distil_report.write(rows, tmp_path):
        assert path.read_text() == (RESULTS / path.name).read_text(), path.name
