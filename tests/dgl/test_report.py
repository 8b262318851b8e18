"""report.py and train.py --report: every section is there, and a browser shows the page without errors or requests."""
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import report
import train
from dgl import cost
from dgl.report import drawing, images, modes, numbers, of_run, page, samples
from dnnlib.errors import UserError
from tests import browser, tiny, tiny_biggan
from tests.training import test_networks_stylegan3 as stylegan3
from tests.training import tiny_runs
from training import run_config
from training.checkpoints.pickles import open_networks, save_networks

HEADINGS = ["Images on the same latents", "Difference from the teacher", "Classes", "Modes of the teacher", "Costs",
            "Channels", "Scores", "Curves of the run", "Nearest training images"]
STAGES = ["teacher", "slice", "refit", "student"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the page that --report writes; then it gets scores, and a line that is cut short."""
    folder = tmp_path_factory.mktemp("run")
    teacher = tiny.write_teacher(folder / "teacher.pkl", c_dim=2, resolution=8)
    data = tiny.write_data(folder / "data", num=8, side=8, num_classes=2)
    options = tiny_runs.options(data, *tiny_runs.DGL, f"--teacher={teacher}", "--width=0.5", "--refit", "--cond=true")
    path = tiny_runs.run(folder / "run", options)
    (path / "training_options.json").write_text(json.dumps(options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "MEASURING_SEC", 0.01)
        assert of_run.write(run_config.read(path), path) == str(path / "report.html")
    (path / "metric-fd.jsonl").write_text("".join(
        json.dumps({"results": {"fd": fd}, "metric": "fd", "protocol": {"num_gen": 50},
                    "snapshot_pkl": f"network-snapshot-{kimg:06d}.pkl"}) + "\n" for kimg, fd in ((2, 9), (5, 7))))
    with open(path / "stats.jsonl", "a") as f:
        f.write('{"torn')
    return path


@pytest.fixture(scope="module")
def written(run_dir: Path) -> Path:
    """The page of that run by report.py, which finds everything in its folder."""
    dest = run_dir.with_name("page.html")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "MEASURING_SEC", 0.01)
        result = run(f"--run={run_dir}", f"--dest={dest}", "--device=cpu")
    assert result.exit_code == 0, result.output
    return dest


def run(*args: str) -> Any:
    return CliRunner().invoke(report.main, list(args))


def test_the_page_in_a_browser(written: Path) -> None:
    browser.require()
    with browser.Page(width=900) as opened:
        opened.open(written.as_uri())
        opened.wait("document.readyState === 'complete'")
        assert opened.run("[...document.querySelectorAll('h2')].map(item => item.textContent)") == HEADINGS
        section = "document.querySelectorAll('section')[0]"
        assert opened.run(f"[...{section}.querySelectorAll('figcaption')].map(item => item.textContent)") == STAGES
        shown = "[...document.querySelectorAll('img[data-step]')].filter(i => !i.hidden).map(i => i.dataset.psi)"
        assert opened.run(shown) == ["1.0"] * 4
        opened.run("(s => { s.value = 1; s.dispatchEvent(new Event('input')); })(document.getElementById('psi'))")
        assert opened.run(shown) == ["0.25"] * 4
        assert opened.run("document.getElementById('psi-text').textContent") == "0.25"
        assert opened.run("[...document.images].every(image => image.naturalWidth > 0)")
        assert opened.run("document.documentElement.scrollWidth") <= 900
        assert np.asarray(PIL.Image.open(io.BytesIO(opened.screenshot())).convert("L")).std() > 10
        assert opened.errors == []
        assert {url.split(":")[0] for url in opened.requests} <= {"file", "data"}


def test_what_the_page_says(written: Path, run_dir: Path) -> None:
    text = written.read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == HEADINGS
    assert "<td>7</td><td>7</td><td>{&quot;num_gen&quot;: 50}</td>" in text
    assert "7 to 9; 2 to 5 kimg" in text
    for curve in ("λ, the weight of the teacher&#x27;s term", "the teacher&#x27;s share of the images&#x27; gradient",
                  "Loss/teacher/signs/fake", "Loss/signs/real", "Loss/G/loss", "Loss/D/loss"):
        assert f"<figcaption>{curve}</figcaption>" in text, curve
    assert "Timing/" not in text
    assert "A row for each of the classes 0, 1." in text
    assert "<th>slice: variation</th>" in text
    assert "distance by the teacher&#x27;s D" in text
    assert "Among 8 training images." in text
    assert ".pkl and its teacher" in text
    assert "http" not in text
    at_end = (run_dir / "report.html").read_text()  # before there were scores
    assert re.findall("<h2>(.*?)</h2>", at_end) == HEADINGS
    assert "This run has no metrics." in at_end


@pytest.mark.parametrize("done", [True, False])
def test_the_page_is_written_at_the_end_of_a_run(
    done: bool, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def write(config: run_config.RunConfig, folder: str) -> str:
        calls.append((config.loss.name, folder))
        return "the page"

    monkeypatch.setattr(train, "_worker", lambda config, folder, resume, trust: 0 if done else 143)
    monkeypatch.setattr(of_run, "write", write)
    args = ["--cfg=dgl", f"--teacher={run_dir.parent}/teacher.pkl", "--width=0.5", f"--outdir={tmp_path}", "--report"]
    result = CliRunner().invoke(train.main, args)
    assert result.exit_code == (0 if done else 143), result.output
    (folder,) = tmp_path.iterdir()
    assert calls == [("dgl.loss.DGLLoss", str(folder))] * done
    assert ("Written: the page\n" in result.output) is done


def test_the_stages_are_those_that_the_run_began_with(run_dir: Path) -> None:
    config = run_config.read(run_dir)
    teacher = of_run.teacher_of(config, run_dir)
    made = of_run.between(teacher.G_ema, config)
    assert list(made) == ["slice", "refit"]
    z, c = tiny.latents(8, c_dim=2)
    errors = [float((G(z, c, noise_mode="const") - teacher.G_ema(z, c, noise_mode="const")).square().mean())
              for G in made.values()]
    assert errors[1] < errors[0]
    assert of_run.between(teacher.G_ema, config.changed(networks={"init": None})) == {}


def test_the_stages_of_a_biggan(tmp_path: Path) -> None:
    """A BigGAN is refitted as a slice whose weights are those that its spectral norms give."""
    args = ["--cfg=dgl", f"--teacher={tiny_biggan.write_teacher(tmp_path / 'teacher.pkl')}", "--width=0.5"]
    config = run_config.from_dict(tiny_runs.options("teacher", *args))
    teacher = of_run.teacher_of(config, tmp_path)
    made = of_run.between(teacher.G_ema, config)
    assert list(made) == ["slice", "refit"]
    inputs = tiny_biggan.inputs(teacher.G_ema, 32)
    errors = [float((G(*inputs) - teacher.G_ema(*inputs)).square().mean()) for G in made.values()]
    assert errors[1] < errors[0]


def test_a_run_whose_teacher_has_no_discriminator(run_dir: Path, tmp_path: Path) -> None:
    config = run_config.read(run_dir)
    networks = open_networks(f"{run_dir.parent}/teacher.pkl")
    path = tmp_path / "teacher.pkl"
    save_networks({"G_ema": networks["G_ema"]}, path)
    alone = config.changed(loss=config.loss.with_arguments(teachers=[{"url": str(path)}]))
    teacher = of_run.teacher_of(alone, run_dir)
    assert teacher.D is None
    assert list(of_run.between(teacher.G_ema, alone)) == ["slice", "refit"]


def test_networks_that_are_given(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    monkeypatch.setattr(page, "write", lambda dest, generators, *rest: shown.update(generators) or Path(dest).touch())
    teacher = str(run_dir.parent / "teacher.pkl")
    args = [f"--teacher={teacher}", f"--network={teacher}", f"--refit={teacher}", f"--dest={tmp_path}/page.html"]
    assert run(*args).exit_code == 0
    assert list(shown) == ["teacher", "refit", "student"]


def test_a_student_that_is_its_teacher_loses_nothing() -> None:
    G = tiny.tiny_generator(resolution=4)
    assert "0 of 10 clusters of 60 images are lost; the others hold 100 %" in modes.modes(G, G, 60)
    assert "mean 0.0 grey levels" in images.differences({"teacher": G, "same": G})


def test_a_collapsed_student_loses_modes() -> None:
    G, collapsed = (tiny.tiny_generator(resolution=4) for _ in range(2))
    for parameter in collapsed.mapping.parameters():
        parameter.zero_()
    text = modes.modes(G, collapsed, 60)
    assert text.startswith("<p>9 of 10 clusters")
    assert text.count("(lost)</span>") == 9


def test_rows_per_class() -> None:
    G, other = (tiny.tiny_generator(resolution=4, c_dim=3, seed=seed) for seed in (0, 1))
    for parameter in other.mapping.fc0.parameters():
        parameter.zero_()
    table = images.classes({"teacher": G, "same": G, "collapsed": other})
    rows = [re.findall("<t[dh]>(.*?)</t[dh]>", row) for row in re.findall("<tr>(.*?)</tr>", table)]
    assert [row[0] for row in rows] == ["class", "0", "1", "2"]
    assert all(row[1:3] == ["0.0", "100 %"] and float(row[3]) > 1 and row[4] == "0 %" for row in rows[1:])


def test_large_images_are_few_and_shown_small() -> None:
    assert [samples.affordable(side, 400, 64) for side in (8, 64, 128, 256, 1024)] == [400, 400, 100, 64, 64]
    pixels = np.arange(256 * 256, dtype=np.uint8).reshape(1, 256, 256, 1)
    result = samples.shown(pixels)
    assert result.shape == (1, 128, 128, 1)
    assert result[0, 0, 0, 0] == round(np.mean([0, 1, 0, 1]))
    assert "data:image/jpeg" in drawing.picture(result[0], "large", 128)
    assert "data:image/png" in drawing.picture(result[0, :8, :8], "small", 8)


@pytest.mark.parametrize("kind", ["stylegan3", "biggan"])
def test_other_families(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "MEASURING_SEC", 0.01)
    monkeypatch.setattr(modes, "IMAGES", 20)
    monkeypatch.setattr(images, "PAIRS", 8)
    make = {"stylegan3": lambda: stylegan3.tiny(num_layers=3), "biggan": lambda: tiny_biggan.tiny_generator("shared32")}
    page.write(tmp_path / "page.html", {"teacher": make[kind](), "student": make[kind]()})
    text = (tmp_path / "page.html").read_text()
    assert "has no discriminator to measure a perceptual distance with" in text
    assert "mean 0.0 grey levels" in text


def test_channels_of_networks_whose_layers_are_named_by_their_width() -> None:
    wide, narrow = (stylegan3.tiny(num_layers=3, channel_max=size) for size in (8, 4))
    text = numbers.channels(wide, narrow)
    assert 'aria-label="L0: teacher 8, student 4"' in text


def test_heat_maps_go_from_black_over_red_to_white() -> None:
    result = drawing.heat_map(np.array([[0, 1 / 3, 1]]))
    assert result.tolist() == [[[0, 0, 0], [255, 0, 0], [255, 255, 255]]]


def test_bad_input(run_dir: Path, tmp_path: Path) -> None:
    teacher = tiny.write_teacher(tmp_path / "teacher.pkl", resolution=8)
    other = tiny.write_teacher(tmp_path / "other.pkl", resolution=4)
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "empty").mkdir()
    both = [f"--teacher={teacher}", f"--network={teacher}"]
    page_option = f"--dest={tmp_path}/p.html"
    for args, message, code in (
        ([*both, f"--dest={tmp_path}/page.txt"], "--dest: expected a name that ends in .html", 1),
        ([*both, f"--dest={tmp_path}/there.html"], "exists already; remove it, or name another", 1),
        ([*both, page_option, "--run=none"], "--run: none: no such folder", 1),
        ([*both, page_option, "--data=none.zip"], "--data: none.zip: no such folder or zip", 1),
        ([*both, page_option, f"--run={tmp_path}/empty"], "training_options.json: cannot be read: No such file", 1),
        ([f"--teacher={teacher}", f"--network={other}", page_option], "--network: expected the teacher's z_dim", 1),
        ([*both, f"--slice={other}", page_option], "--slice: expected the teacher's z_dim, c_dim", 1),
        ([*both, f"--refit={other}", page_option], "--refit: expected the teacher's z_dim, c_dim", 1),
        ([f"--network={teacher}", page_option], "Missing option '--teacher'; it can only be left out together", 2),
        ([f"--teacher={teacher}", page_option], "Missing option '--network'; it can only be left out together", 2),
        (both, "Missing option '--dest'; it can only be left out together with --run.", 2),
        ([f"--run={run_dir}"], f"--dest: {run_dir}/report.html exists already", 1),
    ):
        result = run(*args)
        assert (result.exit_code, message in result.output) == (code, True), result.output
    assert (tmp_path / "there.html").read_text() == "mine"
    assert {item.name for item in tmp_path.iterdir()} == {"teacher.pkl", "other.pkl", "there.html", "empty"}


def test_scores_of_several_detectors(tmp_path: Path) -> None:
    rows = [{"results": {f"fd@{name}": fd}, "protocol": {"detector": name}} for name, fd in (("a", 1.5), ("b", 20.0))]
    (tmp_path / "metric-fd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = numbers.scores(tmp_path)
    for name, fd in (("a", "1.5"), ("b", "20")):
        assert f"fd@{name}</th><td>{fd}</td><td>{fd}</td><td>{{&quot;detector&quot;: &quot;{name}&quot;}}</td>" in text


def test_runs_without_data_are_known_to_a_process_of_its_own(run_dir: Path, tmp_path: Path) -> None:
    options = json.loads((run_dir / "training_options.json").read_text())
    teacher = {"url": f"{tmp_path}/gone.pkl"}
    options["training_set_kwargs"] = {"class_name": "dgl.teacher_images.TeacherImages", "teacher": teacher}
    options["loss_kwargs"]["teachers"] = [teacher]
    (tmp_path / "training_options.json").write_text(json.dumps(options))
    result = subprocess.run([sys.executable, report.__file__, f"--run={tmp_path}"], capture_output=True, text=True)
    assert result.stderr == f"Error: --teacher: {tmp_path}/gone.pkl: no such file\n"


def test_runs_that_have_no_page(run_dir: Path, tmp_path: Path) -> None:
    config = run_config.read(run_dir)
    with pytest.raises(UserError, match=r"is complete, but its report cannot be written: .* has no network-snapshot"):
        of_run.write(config, tmp_path)
    alone = config.changed(loss=run_config.Component("training.loss.StyleGAN2Loss"))
    with pytest.raises(UserError, match="is a run without a teacher"):
        of_run.teacher_of(alone, run_dir)
    result = CliRunner().invoke(train.main, ["--report", "--data=x", "--outdir=y"])
    assert "--report: can only be given together with --cfg=dgl" in result.output
    (tmp_path / "training_options.json").write_text(json.dumps(alone.to_dict()))
    result = CliRunner().invoke(train.main, [f"--resume={tmp_path}", "--report"])
    assert "--report: compares a student with its teacher, but this run has none" in result.output
