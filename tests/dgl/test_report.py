"""report.py: every section is there, in a page that a browser shows without errors or requests."""
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import report
from dgl import cost
from dgl.report import drawing, sections
from tests import browser, tiny

HEADINGS = ["Images on the same latents", "Difference from the teacher", "Costs", "Channels", "Modes of the teacher",
            "Scores", "Curves of the run", "Nearest training images"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "teacher.pkl", c_dim=2, resolution=8)


@pytest.fixture(scope="module")
def page(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    student = tiny.write_teacher(folder / "student.pkl", c_dim=2, resolution=8, seed=3)
    run_dir = folder / "run"
    run_dir.mkdir()
    (run_dir / "metric-fd.jsonl").write_text("".join(
        json.dumps({"results": {"fd": value}, "metric": "fd", "protocol": {"num_gen": 50}}) + "\n" for value in (9, 7)))
    (run_dir / "stats.jsonl").write_text("".join(
        json.dumps({"Progress/kimg": {"mean": k}, "Loss/G/loss": {"mean": 1 / (k + 1)}, "Timing/x": {"mean": 1}}) + "\n"
        for k in range(4)) + '{"torn')
    data = tiny.write_data(folder / "data", num=6, side=8)
    dest = folder / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "MEASURING_SEC", 0.01)
        result = run(f"--teacher={teacher}", f"--network={student}", f"--slice={student}", f"--run={run_dir}",
                     f"--data={data}", f"--dest={dest}")
    assert result.exit_code == 0, result.output
    return dest


def run(*args: str) -> Any:
    return CliRunner().invoke(report.main, list(args))


def test_the_page_in_a_browser(page: Path) -> None:
    browser.require()
    with browser.Page(width=900) as opened:
        opened.open(page.as_uri())
        opened.wait("document.readyState === 'complete'")
        assert opened.run("[...document.querySelectorAll('h2')].map(item => item.textContent)") == HEADINGS
        shown = "[...document.querySelectorAll('img[data-step]')].filter(i => !i.hidden).map(i => i.dataset.psi)"
        assert opened.run(shown) == ["1.0"] * 3
        opened.run("(s => { s.value = 1; s.dispatchEvent(new Event('input')); })(document.getElementById('psi'))")
        assert opened.run(shown) == ["0.25"] * 3
        assert opened.run("[...document.images].every(image => image.naturalWidth > 0)")
        assert opened.run("document.querySelectorAll('polyline').length") == 2
        assert np.asarray(PIL.Image.open(io.BytesIO(opened.screenshot())).convert("L")).std() > 10
        assert opened.errors == []
        assert {url.split(":")[0] for url in opened.requests} <= {"file", "data"}


def test_what_the_page_says(page: Path) -> None:
    text = page.read_text()
    assert "<td>7</td><td>7</td><td>{&quot;num_gen&quot;: 50}</td>" in text
    assert "Loss/G/loss" in text
    assert "Timing/x" not in text
    assert "Of 6 training images." in text
    assert "student.pkl and its teacher" in text
    assert "http" not in text


def test_a_student_that_is_its_teacher_loses_nothing() -> None:
    G = tiny.tiny_generator(resolution=4)
    assert "0 of 10 clusters of 60 images are lost" in sections.modes(G, G, 60)
    assert "mean 0.0 grey levels" in sections.differences(G, {"same": G}, 4)


def test_a_collapsed_student_loses_modes() -> None:
    G, collapsed = (tiny.tiny_generator(resolution=4) for _ in range(2))
    for parameter in collapsed.mapping.parameters():
        parameter.zero_()
    lost = int(sections.modes(G, collapsed, 60).split(" of ")[0].removeprefix("<p>"))
    assert lost == 9


def test_heat_maps_go_from_black_over_red_to_white() -> None:
    found = drawing.heat_map(np.array([[0, 1 / 3, 1]]))
    assert found.tolist() == [[[0, 0, 0], [255, 0, 0], [255, 255, 255]]]


def test_bad_input(teacher: str, tmp_path: Path) -> None:
    other = tiny.write_teacher(tmp_path / "other.pkl", resolution=4)
    (tmp_path / "there.html").write_text("mine")
    for args, message in (
        ([f"--network={teacher}", f"--dest={tmp_path}/page.txt"], "--dest: expected a name that ends in .html"),
        ([f"--network={teacher}", f"--dest={tmp_path}/there.html"], "exists already; remove it, or name another"),
        ([f"--network={teacher}", f"--dest={tmp_path}/p.html", "--run=none"], "--run: none: no such folder"),
        ([f"--network={other}", f"--dest={tmp_path}/p.html"], "--network: expected the teacher's z_dim, c_dim"),
        ([f"--network={teacher}", f"--slice={other}", f"--dest={tmp_path}/p.html"], "--slice: expected the teacher's"),
    ):
        result = run(f"--teacher={teacher}", *args)
        assert result.exit_code == 1
        assert message in result.output
    assert (tmp_path / "there.html").read_text() == "mine"
    assert {item.name for item in tmp_path.iterdir()} == {"other.pkl", "there.html"}
