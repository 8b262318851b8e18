"""The report about a GPU, rehearsed with the CPU standing in for it."""
import json
import math
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks.gpu_report import __main__ as command
from benchmarks.gpu_report import page, ticks
from benchmarks.gpu_report.section import Section, Setup, Skipped

FAST = ["machine", "builds", "equality", "gradients", "half_precision", "bandwidth", "throughput", "collectives"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    args = ["--device=cpu", "--tiny", f"--out={folder}", *[f"--only={key}" for key in FAST]]
    result = CliRunner().invoke(command.main, args)
    assert result.exit_code == 0, result.output
    return folder


def test_every_section_is_there_and_holds(report: Path) -> None:
    sections = json.loads((report / "report.json").read_text())["sections"]
    assert list(sections) == FAST
    assert {part.key for part in command.sections()} == {*FAST, "ticks"}
    assert {key: section["result"] for key, section in sections.items()} == dict.fromkeys(FAST, "ok")
    assert all(section["rows"] for section in sections.values())


def test_errors_are_measured(report: Path) -> None:
    rows = json.loads((report / "report.json").read_text())["sections"]
    half = [row for row in rows["equality"]["rows"] if row["type"] == "bfloat16"]
    assert max(row["value"] for row in half) > 1e-4
    phases = {row["phase"]: row["length of the gradient"] for row in rows["gradients"]["rows"]}
    assert list(phases) == ["Gmain", "Greg", "Dmain", "Dreg"]
    assert all(math.isfinite(length) and length > 0 for length in phases.values())


def test_the_page_shows_every_section(report: Path) -> None:
    text = (report / "report.md").read_text()
    titles = re.findall("^## (.*)$", text, re.MULTILINE)
    assert titles == [part.title for part in command.sections() if part.key != "ticks"]


def wrong(setup: Setup) -> list[dict[str, object]]:
    raise ValueError("two\nlines")


def skipped(setup: Setup) -> list[dict[str, object]]:
    setup.need_cuda()
    return []


def test_what_goes_wrong_is_part_of_the_report(tmp_path: Path) -> None:
    setup = Setup(torch.device("cpu"), True, tmp_path)
    parts = [Section("a", "A", wrong), Section("b", "B", skipped), Section("c", "C", lambda _: [{"ok": False}])]
    for part in parts:
        part.fill(setup)
    assert [page.verdict(part) for part in parts] == [
        "FAILED: ValueError: two lines",
        "skipped: needs a CUDA device; the CPU stands in for one",
        "FAILED: 1 of 1 rows",
    ]
    assert [part.ok for part in parts] == [False, True, False]
    with pytest.raises(Skipped, match="CUDA device"):
        setup.need_cuda()


def test_errors_of_use() -> None:
    result = CliRunner().invoke(command.main, ["--only=speed", "--device=cpu"])
    assert "Error: --only: expected some of machine, builds, " in result.output
    assert "found speed" in result.output


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu() -> None:
    result = CliRunner().invoke(command.main, ["--device=cuda"])
    assert "Error: --device: expected a CUDA device, found none; --device=cpu rehearses the report." in result.output


@pytest.mark.slow
def test_a_tick_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["--cfg=stylegan2", "--cbase=64", "--cmax=8", "--z-dim=8", "--w-dim=8", "--map-depth=1"]
    monkeypatch.setitem(ticks.RUNS, "stylegan2", small)
    monkeypatch.setitem(ticks.SIDES, "stylegan2", 8)
    monkeypatch.setattr(ticks.os, "cpu_count", lambda: 1)
    setup = Setup(torch.device("cpu"), True, tmp_path)
    rows = ticks.ticks(setup, ("stylegan2",))
    assert [row["SG_OPS"] for row in rows] == ["auto", "ref"]
    assert all(row["ok"] for row in rows), rows
    losses = [float(row["Loss/D/loss"]) for row in rows]
    assert losses[0] == pytest.approx(losses[1], rel=0.2)


def test_losses_far_from_those_of_the_cpu_are_wrong() -> None:
    assert ticks.is_near({"a": 1.4}, {"a": 1.0}, "a")
    assert not ticks.is_near({"a": 1.6}, {"a": 1.0}, "a")
    assert not ticks.is_near({"a": math.nan}, {"a": 1.0}, "a")
    assert ticks.is_near({}, {}, "a")


def test_a_run_that_fails_is_a_row(tmp_path: Path) -> None:
    result = ticks.run(tmp_path / "nothing.zip", ["--cfg=nothing"], "cpu", "ref", tmp_path / "out")
    assert "'nothing' is not one of" in str(result["error"])
