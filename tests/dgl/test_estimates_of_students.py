"""What train.py --dry-run measures of students: without data, with a game after distillation, and of a BigGAN."""
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import train
from tests import tiny, tiny_biggan


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "teacher": tiny.write_teacher(folder / "teacher.pkl"),
        "data": tiny.write_data(folder / "data"),
        "biggan": tiny_biggan.write_teacher(folder / "biggan.pkl"),
        "labelled": tiny.write_data(folder / "labelled", side=32, num_classes=3),
    }


@pytest.mark.parametrize(("args", "stages"), [
    ("--cfg=dgl --teacher={teacher} --kimg=1", [("1", {"distilmain"})]),
    ("--cfg=dgl --teacher={teacher} --kimg=3 --game-kimg=2 --data={data}",
     [("3", {"distilmain"}), ("2", {"Gmain", "Dmain"})]),
    ("--cfg=dgl-biggan --recipe=paper --teacher={biggan} --data={labelled} --kimg=2", [("2", {"Gboth", "Dboth"})]),
])  # fmt: skip
def test_every_stage_is_measured(
    args: str, stages: list[tuple[str, set[str]]], paths: dict[str, str], tmp_path: Path
) -> None:
    words = [*args.format(**paths).split(), "--width=0.5", "--batch=4", "--workers=0", f"--outdir={tmp_path}/runs"]
    result = CliRunner().invoke(train.main, [*words, "--metrics=none", "--dry-run"])
    assert result.exit_code == 0, result.output
    lines = re.findall(r"Measured by 3 steps: [0-9.e+]+ kimg/h for (\S+) kimg \((.*)\)", result.output)
    assert [kimg for kimg, _ in lines] == [kimg for kimg, _ in stages]
    for (_, shares), (_, phases) in zip(lines, stages):  # small shares of others may be there, such as that of data
        parts = {name: int(percent) for name, percent in re.findall(r"([a-zA-Z]+) (\d+)%", shares)}
        assert phases <= set(parts)
        assert sum(parts[name] for name in phases) > 50
    assert re.search(r"^Time: \S.* without snapshots and metrics$", result.output, re.MULTILINE)
    assert not (tmp_path / "runs").exists()
