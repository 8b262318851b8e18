"""Elastic students: nested channels, sandwich training, and every width cut out afterwards."""
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import legacy
import prune_init
import train
from dgl import elastic, prune
from dgl import teacher as teachers
from dgl.architectures import plan_of
from dgl.comparison import draw
from dgl.student import Cut, slice_student
from dnnlib.errors import UserError
from tests import tiny, tiny_biggan
from tests.helpers import run_command
from tests.training import tiny_runs
from training.checkpoints import pickles

WIDTHS = ["3/4", "1/2", "1/4"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("files")
    return {
        "teacher": tiny.write_teacher(folder / "teacher.pkl"),
        "conditional": tiny.write_teacher(folder / "conditional.pkl", c_dim=3),
        "biggan": tiny_biggan.write_teacher(folder / "biggan.pkl"),
    }


def configuration(paths: dict[str, str], *args: str, teacher: str = "teacher") -> dict[str, Any]:
    """Ten iterations of four images."""
    config = tiny_runs.options("teacher", "--cfg=dgl", f"--teacher={paths[teacher]}", "--width=1", "--batch=4",
                               "--workers=0", "--score=l1", f"--elastic={','.join(reversed(WIDTHS))}", *args)
    config["loss_kwargs"].update(distil_kimg=0.04, distil_warmup_kimg=0.008)
    config["ema_start_kimg"] = 0.008
    return config


@pytest.fixture(scope="module")
def trained(paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run."""
    return tiny_runs.run(tmp_path_factory.mktemp("runs") / "run", configuration(paths))


def snapshot(folder: Path) -> str:
    return str(max(folder.glob("network-snapshot-*.pkl")))


def images(G: Any, c_dim: int = 0) -> torch.Tensor:
    """Of constant noise, [4, C, H, W]; a subnetwork is given the ws of its whole network."""
    z, c = tiny.latents(c_dim=c_dim)
    ws = G.mapping(z, c)
    return draw(G, z, c, ws)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_channels_in_another_order_compute_the_same(architecture: str) -> None:
    G = tiny.tiny_generator(architecture)
    other = tiny.tiny_generator(architecture)
    order = {name: torch.randperm(size, generator=torch.Generator().manual_seed(size))
             for name, size in plan_of(G).sets.items()}
    prune.reorder(other, order)
    assert torch.equal(other.synthesis.b4.const, G.synthesis.b4.const[order["b4.const"]])
    torch.testing.assert_close(images(other), images(G), rtol=1e-4, atol=1e-5)


def test_an_order_of_other_channels_is_refused() -> None:
    G = tiny.tiny_generator()
    order = {name: torch.arange(size) for name, size in plan_of(G).sets.items()}
    with pytest.raises(ValueError, match=r"b8\.conv1: expected an order of 16 channels"):
        prune.reorder(G, {**order, "b8.conv1": torch.zeros([16], dtype=torch.int64)})


def test_nested_channels_are_those_of_every_narrower_slice(paths: dict[str, str]) -> None:
    source = teachers.load(paths["teacher"])
    whole = slice_student(source, Cut(Fraction(1), "l1", num_samples=8, nested=True))
    torch.testing.assert_close(images(whole.G_ema), images(source.G_ema), rtol=1e-4, atol=1e-5)
    for text in WIDTHS:
        width = Fraction(text)
        narrow = slice_student(source, Cut(width, "l1", num_samples=8))
        for name, kept in narrow.keep.items():
            assert set(whole.keep[name][: len(kept)].tolist()) == set(kept.tolist())
        part = elastic.Subnetwork(whole.G_ema, width)
        z, c = tiny.latents()
        torch.testing.assert_close(draw(part, z, c, whole.G_ema.mapping(z, c)), images(narrow.G_ema), rtol=1e-4,
                                   atol=1e-5)


def test_gradients_reach_the_first_channels_alone() -> None:
    G = tiny.tiny_generator().requires_grad_(True)
    part = elastic.Subnetwork(G, Fraction(1, 2))
    z, c = tiny.latents()
    part.synthesis(G.mapping(z, c).detach(), noise_mode="const").square().sum().backward()
    gradient = G.synthesis.b8.conv1.weight.grad
    assert (gradient[:8, :8].abs().sum(dim=[2, 3]) > 0).all()
    assert not gradient[8:].any()
    assert not gradient[:, 8:].any()
    assert G.mapping.fc0.weight.grad is None


def test_a_step_trains_the_widest_the_narrowest_and_one_other() -> None:
    sandwich = elastic.Sandwich(tiny.tiny_generator(), [Fraction(text) for text in WIDTHS], seed=1)
    chosen = [list(sandwich.at(n)) for n in range(0, 640, 16)]
    assert {len(widths) for widths in chosen} == {3}
    assert {(widths[0], widths[-1]) for widths in chosen} == {(Fraction(1), Fraction(1, 4))}
    assert {widths[1] for widths in chosen} == {Fraction(1, 2), Fraction(3, 4)}
    assert list(elastic.Sandwich(tiny.tiny_generator(), [Fraction(1, 2)], 0).at(0)) == [1, Fraction(1, 2)]


@pytest.mark.unrecorded
def test_every_width_is_cut_out_exactly(trained: Path, tmp_path: Path) -> None:
    """The networks that prune_init.py writes draw the images of the elastic network at these widths."""
    path = snapshot(trained)
    nets = pickles.open_networks(path)
    assert nets["notes"] == {"elastic": WIDTHS}
    for text in WIDTHS:
        dest = tmp_path / f"{text.replace('/', 'of')}.pkl"
        result = CliRunner().invoke(prune_init.main, [f"--teacher={path}", f"--width={text}", f"--dest={dest}",
                                                      "--no-latency", "--device=cpu"])
        assert result.exit_code == 0, result.output
        assert "Warning" not in result.output
        narrow = pickles.open_networks(str(dest))
        assert "notes" not in narrow
        z, c = tiny.latents()
        part = elastic.Subnetwork(nets["G_ema"], Fraction(text))
        expected = draw(part, z, c, nets["G_ema"].mapping(z, c))
        torch.testing.assert_close(images(narrow["G_ema"]), expected, rtol=1e-5, atol=1e-6)
        record = json.loads(dest.with_suffix(".cost.json").read_text())
        assert (record["score"], record["refit"], record["elastic"]) == ("first", {}, WIDTHS)
        assert record["kept_channels"]["b8.conv1"] == list(range(int(16 * Fraction(text))))


def test_a_cut_that_was_not_trained_is_a_warning(trained: Path, tmp_path: Path) -> None:
    for args in (["--width=1/3"], ["--width=1/2", "--score=l1", "--score-samples=4"]):
        result = CliRunner().invoke(prune_init.main, [f"--teacher={snapshot(trained)}", f"--dest={tmp_path}/cut.pkl",
                                                      "--no-latency", *args])
        assert result.exit_code == 0, result.output
        assert ("Warning: the teacher is elastic, but was not trained to be cut like this; what it was trained for: "
                "--width=3/4 or --width=1/2 or --width=1/4, without --score") in result.output


@pytest.mark.unrecorded
def test_a_copy_of_the_pickle_keeps_the_note(trained: Path, tmp_path: Path) -> None:
    copies = [(tmp_path / "copy.pkl", [], True), (tmp_path / "large.pkl", ["--resolution=32"], False),
              (tmp_path / "copy.pt", ["--format=rosinality"], False)]
    for dest, args, is_kept in copies:
        result = CliRunner().invoke(legacy.main, [f"--source={snapshot(trained)}", f"--dest={dest}", *args])
        assert result.exit_code == 0, result.output
        assert ("notes" in pickles.open_networks(str(dest))) is is_kept
        assert ("left out: the notes" in result.output) is not is_kept


@pytest.mark.parametrize("widths", [[0.5], ["1/2", "2"], "1/2", ["x"], ["1/0"]])
def test_damaged_notes_are_one_line(widths: Any) -> None:
    with pytest.raises(UserError, match="the note 'elastic' in the pickle is damaged: expected widths below 1"):
        elastic.trained_widths({"elastic": widths})
    assert elastic.trained_widths(None) is elastic.trained_widths({"other": 1}) is None


@pytest.mark.unrecorded
def test_a_resumed_run_is_an_unbroken_one_to_the_bit(paths: dict[str, str], trained: Path, tmp_path: Path) -> None:
    stops = iter([False, True])
    broken = tiny_runs.run(tmp_path / "broken", configuration(paths), abort_fn=lambda: next(stops))
    assert tiny_runs.last_state(broken)["cur_nimg"] < 40
    tiny_runs.run(broken, configuration(paths), resume_state=True)
    assert tiny_runs.differences(tiny_runs.last_state(broken), tiny_runs.last_state(trained)) == []
    records = tiny_runs.records(trained)
    assert records[-1]["Loss/distil/width0.25"]["num"] > 0
    assert sum(record.get("Loss/distil/width0.5", {"num": 0})["num"] for record in records) > 0


def test_all_widths_come_closer_to_the_teacher(paths: dict[str, str], tmp_path: Path) -> None:
    """Of a conditional teacher, so that labels are part of it."""
    config = configuration(paths, "--batch=16", teacher="conditional")
    config["loss_kwargs"].update(distil_kimg=0.32, distil_warmup_kimg=0.032)
    folder = tiny_runs.run(tmp_path / "run", config, total_kimg=0.32, kimg_per_tick=0.16)
    source, nets = teachers.load(paths["conditional"]), pickles.open_networks(snapshot(folder))
    z, c = tiny.latents(c_dim=3)
    start = slice_student(source, Cut(Fraction(1), "l1", nested=True)).G_ema
    target = images(source.G_ema, 3)
    for text in WIDTHS[1:]:
        first, last = (
            float((draw(elastic.Subnetwork(G, Fraction(text)), z, c, G.mapping(z, c)) - target).abs().mean())
            for G in (start, nets["G_ema"]))
        assert last < 0.97 * first


@pytest.mark.parametrize(("args", "message"), [
    ("--elastic=1/2,1", "expected different fractions below 1 such as 3/4,1/2,1/4, found '1/2,1'"),
    ("--elastic=1/2,0.5", "expected different fractions below 1"),
    ("--elastic=1/2 --game-kimg=1 --data=teacher", "--elastic: cannot be given together with --game-kimg: adver"),
    ("--elastic=1/2 --init=mapping", "--elastic: needs channels in the order of their score"),
    ("--elastic=1/2 --kd=torgb", "--elastic: cannot be given together with --kd=torgb, which draws images by"),
    ("--elastic=1/2 --recipe=paper --data=teacher", "--elastic: cannot be given together with --recipe=paper"),
    ("--elastic=1/2 --teacher=BIGGAN", "--elastic: cannot be given together with --cfg=dgl-biggan"),
])
def test_mistakes_are_one_line(args: str, message: str, paths: dict[str, str]) -> None:
    words = args.replace("BIGGAN", paths["biggan"]).split()
    teacher = [] if "--teacher" in args else [f"--teacher={paths['teacher']}"]
    result = CliRunner().invoke(train.main, ["--cfg=dgl", *teacher, "--width=1", "--dry-run", "--no-estimate", *words])
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.slow
def test_two_processes_see_the_same_latents_and_widths(paths: dict[str, str], tmp_path: Path) -> None:
    run_command(["train.py", "--cfg=dgl", f"--teacher={paths['teacher']}", "--width=1", "--kimg=1",
                 "--elastic=1/2,1/4", "--score=first", "--batch=500", "--batch-gpu=125", "--gpus=2", "--device=cpu",
                 f"--outdir={tmp_path}"])
    (folder,) = tmp_path.iterdir()
    record = tiny_runs.records(folder)[-1]
    assert record["Loss/distil/width0.25"]["num"] == record["Loss/distil/loss"]["num"] > 0
    assert pickles.open_networks(snapshot(folder))["notes"] == {"elastic": ["1/2", "1/4"]}
