"""The long experiments: their table, the order of work, stopping and resuming, and what is shown of results."""
import json
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import train
from benchmarks import compress_fmnist
from benchmarks.compress import execution, plot, report, table
from dnnlib.errors import UserError


def result_row(name: str, seed: int, fd: float, group: str = "headline", kimg: int = 100, **more: Any) -> dict:
    return {"name": name, "group": group, "title": name.replace("-", " "), "seed": seed, "kimg": kimg,
            "detector": "x", "results": {"fd@x": fd, "precision@x": 0.5, "recall@x": 0.25},
            "protocol": {"num_gen": 100, "num_real": 200}, "arguments": [], **more}


def test_the_table_has_every_comparison_that_was_promised() -> None:
    runs = {run.name: run for run in table.runs()}
    assert len(runs) == len(table.runs())
    headline = [run for run in runs.values() if run.group == "headline"]
    assert {run.name for run in headline} == {f"half-{start}-lambda{weight}" for start in ("l1", "scratch")
                                              for weight in ("0", "0.1")}
    boost = [run for run in runs.values() if run.group == "boost"]
    assert {run.name for run in boost} == {"full-continued", "full-boosted"}
    assert all(len(run.seeds) >= 3 and run.kimg == 100 and run.also_at == (50,) for run in [*headline, *boost])
    explored = [run for run in runs.values() if run.group == "exploratory"]
    assert all(run.seeds[0] == 0 and run.kimg == 50 for run in explored)
    for share in ("half", "quarter"):
        for start in ("scratch", "l1", "first", "content", "diversity"):
            assert {f"{share}-{start}-{how}" for how in ("lambda0", "lambda0.1", "two-stages")} <= set(runs)
    assert {f"half-l1-lambda{weight}" for weight in ("0", "0.03", "0.1", "0.3", "1")} <= set(runs)
    assert {"half-l1-updated", "half-l1-thin-d"} <= set(runs)
    assert {f"half-l1-fresh-d-lambda{weight}" for weight in ("0", "0.1", "1")} <= set(runs)
    assert {f"half-l1-kd-{term}" for term in ("rgb", "feature", "latent")} <= set(runs)
    for a, b, kimg in report.PAIRS:
        assert all(len(runs[name].seeds) >= 3 and kimg in (runs[name].kimg, *runs[name].also_at) for name in (a, b))


def test_every_row_is_a_command_line_that_train_knows(tmp_path: Path) -> None:
    with workshop(tmp_path) as shop:
        for run in table.runs():
            if run.kimg:
                args = [*shop.train_arguments(run, 0, Path("x.zip")), "--outdir=x"]
                values, rest, _ = train.main.make_parser(click.Context(train.main)).parse_args(args)
                assert rest == []
                assert values["stage1_kimg"] == (str(run.kimg // 2) if "two-stages" in run.name else "0")


def test_a_first_seed_of_every_row_comes_before_a_second() -> None:
    order = [(run.group, seed) for run, seed in compress_fmnist.jobs(table.runs())]
    assert [seed for group, seed in order if group == "headline"] == [0] * 4 + [1] * 4 + [2] * 4
    groups = [group for group, _ in order]
    assert list(dict.fromkeys(groups)) == list(table.GROUPS)


def test_a_trial_is_shorter() -> None:
    run = next(run for run in table.runs() if run.name == "half-l1-two-stages")
    short = table.shortened(run, 6)
    assert short.kimg == 6
    assert "--stage1-kimg=3" in short.arguments
    assert table.shortened(table.runs()[0], 6).kimg == 0


def workshop(tmp_path: Path, deadline: float | None = None) -> execution.Workshop:
    detectors = [Path("x.pt"), Path("y.pt")]
    return execution.Workshop(tmp_path / "out", {"gamma": 0.05, "kimg": None}, Path("t.pkl"), detectors, 100, deadline)


class FakeCommands:
    """Stands for every command line: notes it and writes what it would write; may be stopped in the middle."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stop_in_training = False

    def __call__(self, shop: Any, *words: str) -> str:
        shop.check_time()
        self.lines.append(" ".join(words))
        flags = dict(re.findall(r"--([\w-]+)=(\S+)", self.lines[-1]))
        if words[0] == "dataset_tool.py":
            Path(flags["dest"]).write_bytes(b"")
        elif words[0] == "prune_init.py":
            Path(flags["dest"]).write_bytes(b"")
            Path(flags["dest"]).with_suffix(".cost.json").write_text("{}")
        elif words[0] == "train.py":
            folder = Path(flags.get("resume") or Path(flags["outdir"], "00000-x"))
            folder.mkdir(parents=True, exist_ok=True)
            provenance = {"command": ["train.py", "--data=/a/secret/place"], "commit": "abc"}
            (folder / "training_options.json").write_text(json.dumps({"provenance": provenance}))
            if self.stop_in_training:
                raise execution.OutOfTime
            stats = {"Progress/kimg": {"mean": 2.0}, "Loss/signs/real": {"mean": 0.25},
                     "Timing/sec_per_kimg": {"mean": 7.0}, "Resources/cpu_mem_gb": {"mean": 1.0}}
            (folder / "stats.jsonl").write_text(json.dumps(stats) + "\n")
            (folder / "network-snapshot-000002.pkl").write_bytes(b"")
        else:
            assert words[0] == "calc_metrics.py"
            name = Path(flags["detector"]).stem
            return json.dumps({"results": {f"fd@{name}": 3.5}, "protocol": {"num_gen": 100, "num_real": 200}}) + "\n"
        return ""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCommands:
    commands = FakeCommands()
    monkeypatch.setattr(execution.Workshop, "command", lambda shop, *words: commands(shop, *words))
    return commands


def call(tmp_path: Path, *options: str) -> Any:
    for name in ("t.pkl", "train.gz", "x.pt", "y.pt"):
        (tmp_path / name).write_bytes(b"")
    args = [f"--out={tmp_path}/out", f"--teacher={tmp_path}/t.pkl", f"--train-data={tmp_path}/train.gz",
            f"--test-data={tmp_path}/train.gz", f"--detector={tmp_path}/x.pt", f"--dest={tmp_path}/results", *options]
    return CliRunner().invoke(compress_fmnist.main, args)


ONLY = ["--only=half-l1-untrained,half-l1-lambda0.1", "--kimg=2"]


def test_what_is_done_is_not_done_again(fake: FakeCommands, tmp_path: Path) -> None:
    fake.stop_in_training = True
    result = call(tmp_path, *ONLY)
    assert result.exit_code == 0, result.output
    assert result.output.endswith("Stopped; the same command resumes from here.\n")
    assert [line.split()[0] for line in fake.lines] == ["dataset_tool.py", "dataset_tool.py", "prune_init.py",
                                                        "calc_metrics.py", "train.py"]
    fake.stop_in_training, fake.lines = False, []
    assert call(tmp_path, *ONLY).output.endswith("All runs are done.\n")
    assert "--resume=" in fake.lines[0]
    assert len([line for line in fake.lines if line.startswith("train.py")]) == 3  # seeds 0, 1, 2
    assert len([line for line in fake.lines if line.startswith("calc_metrics.py")]) == 3
    fake.lines = []
    call(tmp_path, *ONLY)
    assert fake.lines == []
    call(tmp_path, *ONLY, f"--detector={tmp_path}/y.pt")  # a further detector scores what is there
    assert [re.findall(r"--metrics=(\S+)", line)[0] for line in fake.lines] == ["fid50k_full"] * 4


def test_rows_say_how_they_came_about_but_not_where(fake: FakeCommands, tmp_path: Path) -> None:
    call(tmp_path, *ONLY)
    text = (tmp_path / "out/results.jsonl").read_text()
    row = json.loads(text.splitlines()[-1])
    assert row["provenance"] == {"commit": "abc"}
    assert row["training"] == {"Progress/kimg": 2.0, "Loss/signs/real": 0.25, "Timing/sec_per_kimg": 7.0}
    assert row["protocol"] == {"num_gen": 100, "num_real": 200}
    assert set(row["settings"]["sha256"]) == {"t.pkl", "train.gz"}
    assert str(tmp_path) not in text
    shown = call(tmp_path, *ONLY, "--list").output.splitlines()
    assert shown[-1].startswith("4 runs, 0 kimg to train")
    assert all("scored" in line for line in shown[1:-1])


def test_other_settings_are_refused(fake: FakeCommands, tmp_path: Path) -> None:
    call(tmp_path, *ONLY)
    result = call(tmp_path, *ONLY, "--gamma=1")
    assert result.exit_code == 1
    assert f"--out: {tmp_path}/out was made with another gamma; name a new folder" in result.stderr


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--teacher=none.pkl", "--teacher: none.pkl: no such file; name a network pickle"),
        ("--train-data=none.gz", "--train-data: none.gz: no such file; apt install dataset-fashion-mnist"),
        ("--only=best", "--only: no run or group is called 'best'; --list shows them"),
    ],
)
def test_mistakes_are_one_line(option: str, message: str, tmp_path: Path) -> None:
    result = call(tmp_path, option)
    assert result.exit_code == 1
    assert message in result.stderr


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with workshop(tmp_path), pytest.raises(UserError, match="another process is at work"):
        workshop(tmp_path)
    assert signal.getsignal(signal.SIGTERM) == before
    with workshop(tmp_path) as shop:
        assert shop.rows() == []


SLEEPER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (open(sys.argv[1], "w").write("saved"), sys.exit(0)))
open(sys.argv[1] + ".up", "w").close()
time.sleep(60)
"""


def test_at_the_deadline_the_command_is_ended(tmp_path: Path) -> None:
    with workshop(tmp_path, deadline=time.monotonic() + 0.5) as shop:
        with pytest.raises(execution.OutOfTime):
            shop.command("-c", "import time; time.sleep(250)")
        with pytest.raises(execution.OutOfTime):
            shop.command("-c", "pass")
    assert "pass" not in (tmp_path / "out/log.txt").read_text()


def test_sigterm_reaches_the_command(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    code = f"""
from pathlib import Path
from benchmarks.compress import execution
try:
    with execution.Workshop(Path({str(tmp_path)!r}) / "out", {{}}, Path("t"), [], 1, None) as shop:
        shop.command({str(tmp_path / "sleeper.py")!r}, {str(tmp_path / "note")!r})
except execution.OutOfTime:
    print("stopped")
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        for _ in range(500):
            if (tmp_path / "note.up").exists():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.read().endswith("stopped\n")
    assert (tmp_path / "note").read_text() == "saved"


def test_a_failing_command_is_named_with_its_last_words(tmp_path: Path) -> None:
    with workshop(tmp_path) as shop:
        with pytest.raises(UserError, match=r"^-c ended with exit status 3: out of luck$"):
            shop.command("-c", "import sys; print('out of luck', file=sys.stderr); sys.exit(3)")
        assert shop.command("-c", "print(5)") == "5\n"


def test_statistics_are_those_of_the_length(tmp_path: Path) -> None:
    rows = [{"Progress/kimg": {"mean": kimg}, "Loss/x": {"mean": 2 * kimg}} for kimg in (0.03, 25.1, 50.3, 75.4)]
    (tmp_path / "stats.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"cut sh')
    assert execution.statistics_at(tmp_path / "stats.jsonl", 50) == {"Progress/kimg": 50.3, "Loss/x": 100.6}


# What is shown.


def test_means_and_standard_errors() -> None:
    mean, error, count = report.summary([1, 2, 6])
    assert (mean, count) == (3, 3)
    assert error == pytest.approx((7 / 3) ** 0.5)  # sample variance 7
    assert report.text_of((3, error, 3), 2) == "3.00 ± 1.53"
    assert report.text_of(report.summary([4.0]), 1) == "4.0"


def test_the_report(tmp_path: Path) -> None:
    rows = [result_row("half-l1-lambda0", seed, 10 + seed) for seed in range(3)]
    rows += [result_row("half-l1-lambda0.1", seed, 8 + 2 * seed, training={"Loss/signs/real": 0.5})
             for seed in range(3)]
    rows += [result_row("half-l1-lambda0", 0, 14, kimg=50), result_row("quarter", 0, 20, "exploratory", 50),
             result_row("teacher", 0, 5, "reference", 0)]
    paths = report.write(rows, tmp_path)
    assert [path.name for path in paths] == ["compress_fmnist.jsonl", "compress_fmnist.md", "compress_fmnist.svg"]
    assert execution.read_rows(paths[0]) == [rows[i] for i in (8, 6, 0, 1, 2, 3, 4, 5, 7)]  # as in the table of runs
    headline, rest = paths[1].read_text().split("## Without training")
    assert "| half l1 lambda0 | 100 | 3 | 11.00 ± 0.58 | 0.500 ± 0.000 | 0.250 ± 0.000 |" in headline
    assert ("| half l1 lambda0.1 against half l1 lambda0 | 100 | 3 | -1.00 ± 0.58 (3.10) | 0.000 ± 0.000 (0.000) |"
            in headline)
    reference, explored = rest.split("## Exploratory")
    assert "| teacher | 0 | 1 | 5.00 | 0.500 | 0.250 |" in reference
    assert "| half l1 lambda0 | 50 | 1 | 14.00 |" in explored
    assert "| quarter | 50 | 1 | 20.00 |" in explored
    assert "| l1 | 14.00 |  |  |  |  |  |" in explored
    assert "| half l1 lambda0.1 | 100 | 0.50 ± 0.00 |" in explored.split("## Diagnostics")[1]


def test_the_committed_report_is_that_of_its_rows(tmp_path: Path) -> None:
    committed = execution.ROOT / "docs" / "results"
    rows = f"--rows={committed / 'compress_fmnist.jsonl'}"
    args = ["--report", rows, rows, f"--dest={tmp_path}"]  # the same rows twice are the same rows
    assert CliRunner().invoke(compress_fmnist.main, args).exit_code == 0
    assert len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.iterdir():
        assert path.read_text() == (committed / path.name).read_text(), path.name


def test_a_report_without_rows_is_refused(tmp_path: Path) -> None:
    for args in ([f"--out={tmp_path}"], [f"--rows={tmp_path}/none.jsonl"]):
        result = CliRunner().invoke(compress_fmnist.main, ["--report", *args])
        assert result.exit_code == 1
        assert f"{args[0].split('=')[0]}: {tmp_path}" in result.output
    assert not list(tmp_path.iterdir())


def test_of_a_row_that_was_trained_twice_the_report_shows_both_and_counts_the_last(tmp_path: Path) -> None:
    rows = [result_row("half-l1-lambda0", 0, value, "exploratory", 50) for value in (4.25, 5.5)]
    text = report.write([*rows, result_row("quarter", 0, 20, "exploratory", 50)], tmp_path)[1].read_text()
    assert "| half l1 lambda0 | 50 | 1 | 5.50 |" in text
    repeats = text.split("## Trained more than once")[1].split("## Diagnostics")[0]
    assert "| half l1 lambda0, seed 0 | 50 | fd@x | 4.25, 5.50 |" in repeats
    assert "quarter" not in repeats


def test_the_plot_has_a_dot_and_a_bar_for_every_mean() -> None:
    root = ET.fromstring(plot.dots({"fd@x": [("a & b", (10.0, 2.0, 3)), ("c", (5.0, None, 1))]}))
    names = [element.tag.rpartition("}")[2] for element in root]
    assert names.count("circle") == 2
    assert [e.text for e in root if e.tag.endswith("text")][:2] == ["a & b", "c"]
    bars = [e for e in root if e.tag.endswith("line") and e.get("stroke") == "#1f5fa8"]
    lengths = [float(b.get("x2", 0)) - float(b.get("x1", 0)) for b in bars]
    assert lengths[0] == pytest.approx(2 * 2 * plot.PANEL / (12 * 1.05), abs=0.2)
    assert lengths[1] == 0


@pytest.mark.parametrize("top", [0.03, 0.7, 1, 3.2, 12.6, 99, 1234])
def test_ticks_are_few_and_round(top: float) -> None:
    result = plot.ticks(top)
    assert 4 <= len(result) <= 11
    assert result[0] == 0
    assert result[-1] <= top
