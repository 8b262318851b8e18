"""prune_init.py: students of any width and kind, their cost table, and what it says to bad input."""
import json
import shutil
from fractions import Fraction

import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import prune_init
from dgl import scores
from tests import tiny
from tests.helpers import GOLDEN
from training.checkpoints import pickles
from training.checkpoints.pickles import NETWORKS, open_networks


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "teacher.pkl")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A conditional teacher with shortcuts in G."""
    nets = tiny.tiny_networks(c_dim=3)
    nets.update(G=tiny.tiny_generator("resnet", c_dim=3, seed=3), G_ema=tiny.tiny_generator("resnet", c_dim=3, seed=4))
    path = tmp_path_factory.mktemp("net") / "resnet.pkl"
    pickles.save_networks(pickles.snapshot_data(nets, None), path)
    return str(path)


def run(*args, **options):
    """The command without what takes most of its time: measuring the latency, and the refit unless it is asked for."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in {"device": "cpu", **options}.items()]
    return CliRunner().invoke(prune_init.main, ["--no-latency", "--no-refit", *args, *flags])


def student(tmp_path, teacher, *args, **options):
    """The networks of a student, and the record beside them."""
    result = run(*args, teacher=teacher, dest=tmp_path / "student.pkl", **options)
    assert result.exit_code == 0, result.output
    return open_networks(str(tmp_path / "student.pkl")), json.loads((tmp_path / "student.cost.json").read_text())


def same_state(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("file", ["teacher", "resnet", "cifar32", "sg3tree_sg2", "tf_config_f_64"])
def test_width_one_is_the_teacher_bit_for_bit(file, tmp_path, request):
    path = request.getfixturevalue(file) if file in ("teacher", "resnet") else str(GOLDEN / f"{file}.pkl")
    narrow, record = student(tmp_path, path, width="1", d_width="1", score="first")
    wide = open_networks(path)
    for name in NETWORKS:
        assert same_state(narrow[name], wide[name]), name
    teacher_cost, student_cost = record["costs"][:2]
    assert {**student_cost, "name": ""} == {**teacher_cost, "name": ""}


@pytest.mark.parametrize("kind", ["teacher", "resnet"])
@pytest.mark.parametrize("width", ["0.001", "0.57", "2/3"])
def test_any_width(kind, width, tmp_path, request):
    path = request.getfixturevalue(kind)
    narrow, record = student(tmp_path, path, width=width, score="first")
    wide = open_networks(path)
    for res in (4, 8, 16):
        had, has = (n["G"].get_submodule(f"synthesis.b{res}.conv1").weight.shape[0] for n in (wide, narrow))
        assert has == max(1, int(Fraction(width) * had))
        (kept,) = [kept for name, kept in record["kept_channels"].items() if name.endswith(f"b{res}.conv1")]
        assert kept == list(range(has))
    assert same_state(narrow["G_ema"].mapping, wide["G_ema"].mapping)
    assert same_state(narrow["D"], wide["D"])
    z, c = tiny.latents(num=2, c_dim=narrow["G"].c_dim)
    assert narrow["G_ema"](z, c).shape == (2, 3, 16, 16)
    assert torch.isfinite(narrow["G_ema"](z, c)).all()
    assert record["width"] == str(Fraction(width))


@pytest.mark.parametrize("score", scores.NAMES)
def test_scores_and_seeds(score, teacher, tmp_path):
    options = {"width": "1/2", "score": score, "score_samples": 4}
    first, again, other = (
        student(tmp_path, teacher, **options, seed=seed)[1]["kept_channels"] for seed in (1, 1, 2)
    )
    assert first == again
    assert (first != other) or score != "random"
    assert all(kept == sorted(set(kept)) for kept in first.values())


def test_raw_and_averaged_weights_keep_the_same_channels(teacher, tmp_path):
    narrow, record = student(tmp_path, teacher, width="1/2", score="random")
    assert record["refit"] == {}
    (kept,) = [record["kept_channels"][name] for name in record["kept_channels"] if name.endswith("b16.conv1")]
    wide = open_networks(teacher)
    for name in ("G", "G_ema"):
        other, ours = (n[name].synthesis.b16.conv1.bias for n in (wide, narrow))
        assert torch.equal(ours, other[kept])


def test_a_narrow_discriminator(teacher, tmp_path):
    narrow, record = student(tmp_path, teacher, width="1/2", d_width="0.25")
    assert narrow["D"].b8.conv0.weight.shape[0] == 4
    assert torch.isfinite(narrow["D"](tiny.images(), None)).all()
    assert record["d_width"] == "1/4"


def test_a_slice_is_refitted_unless_told_otherwise(teacher, tmp_path):
    flags = [f"--teacher={teacher}", f"--dest={tmp_path / 'a.pkl'}", "--width=1/2", "--d-width=1/2", "--score=first"]
    result = CliRunner().invoke(prune_init.main, [*flags, "--no-latency", "--device=cpu"])
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("refit of ")]
    assert [line.split(":")[0] for line in lines] == ["refit of G_ema", "refit of G", "refit of D"]
    record = json.loads((tmp_path / "a.cost.json").read_text())["refit"]
    assert list(record) == ["G_ema", "G", "D"]
    layers = [layer["layer"] for layer in record["G_ema"]["layers"]]
    blocks = [f"b{res}.{name}" for res in (8, 16) for name in ("conv0", "conv1", "torgb")]
    assert layers == ["b4.conv1", "b4.torgb", *blocks]
    for report in record.values():
        assert report["psnr_after"] > report["psnr_before"]
    networks = [student(tmp_path, teacher, flag, width="1/2", score="first")[0] for flag in ("--refit", "--no-refit")]
    refitted = open_networks(str(tmp_path / "a.pkl"))
    assert same_state(refitted["G"], networks[0]["G"])
    assert same_state(refitted["G_ema"], networks[0]["G_ema"])
    assert not same_state(refitted["G"], networks[1]["G"])


def test_a_network_with_nan_is_refused(tmp_path):
    nets = tiny.tiny_networks()
    for name in ("G", "G_ema"):
        nets[name].synthesis.b8.conv1.bias[3] = float("nan")
    path = tmp_path / "nan.pkl"
    pickles.save_networks(pickles.snapshot_data(nets, None), path)
    result = run(teacher=path, dest=tmp_path / "student.pkl", width="1/2", score="first")
    assert result.exit_code == 1
    assert result.output == (f"Error: --teacher: {path}: G_ema: synthesis.b8.conv1.bias holds numbers that are not "
                             "finite; the training diverged, use an earlier snapshot\n")
    assert not (tmp_path / "student.pkl").exists()


def test_the_table_is_printed_and_saved(teacher, tmp_path):
    result = CliRunner().invoke(
        prune_init.main, [f"--teacher={teacher}", "--width=0.5", f"--outdir={tmp_path}/new", "--device=cpu"]
    )
    assert result.exit_code == 0, result.output
    path = tmp_path / "new" / "teacher-width1of2.pkl"
    assert sorted((tmp_path / "new").iterdir()) == [path.with_suffix(".cost.json"), path]
    record = json.loads(path.with_suffix(".cost.json").read_text())
    assert record["teacher"] == teacher
    assert len(record["teacher_sha256"]) == 64
    assert "up-convolution at its input resolution" in record["macs"]
    costs = {cost["name"]: cost for cost in record["costs"]}
    assert list(costs) == ["teacher G", "student G", "teacher D", "student D"]
    for name, file in (("teacher G", teacher), ("student G", str(path))):
        network = open_networks(file)["G_ema"]
        assert costs[name]["params"] == sum(p.numel() for p in network.parameters())
        assert costs[name]["ms_batch1"] > 0
        assert f"{costs[name]['params']:,}" in result.stdout
        assert f"{costs[name]['macs_in']:,}" in result.stdout
    assert json.loads(result.stdout.splitlines()[-1])["student"] == str(path)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("--width=2/3 --d-width=1/2 --score=random --seed=1 --refine=svs --no-refit",
         "width2of3-random-d1of2-svs-plain-seed1"),
        ("--width=1/2 --score=first", "width1of2-first"),
        ("--target-macs=200001 --keep=global --score=first --no-refit", "macs200001-first-global-plain"),
        ("--target-params=9K --score=content --score-samples=3 --roi=MASK --no-refit",
         "params9000-content-roi-my-mask-samples3-plain"),
    ],
)
def test_names_tell_students_apart_and_are_never_taken_twice(options, name, teacher, tmp_path):
    mask = tmp_path / "my mask.png"
    PIL.Image.new("L", [16, 16], 255).save(mask)
    words = [word.replace("MASK", str(mask)) for word in options.split()]
    args = [f"--teacher={teacher}", *words, f"--outdir={tmp_path}/new", "--device=cpu", "--no-latency"]
    result = CliRunner().invoke(prune_init.main, args)
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "new").glob("*.pkl")
    assert path.name == f"teacher-{name}.pkl"
    before = path.stat()
    again = CliRunner().invoke(prune_init.main, args)
    assert again.exit_code == 1
    assert again.stderr == f"Error: --outdir: {path} exists already; move it away, or name a file by --dest\n"
    assert path.stat() == before


def test_budgets(teacher, tmp_path):
    _, record = student(tmp_path, teacher, target_macs="200K", score="first")
    assert record["costs"][1]["macs_in"] <= 200_000 < record["costs"][0]["macs_in"]
    _, record = student(tmp_path, teacher, target_params="9K", score="first", keep="global")
    assert record["costs"][1]["params"] <= 9000 < record["costs"][0]["params"]


@pytest.mark.parametrize(("params", "score"), [(6000, "first"), (9000, "l1"), (14000, "random"), (6000, "random")])
def test_channels_that_compete_keep_to_a_budget_of_parameters(score, params, teacher, tmp_path):
    _, record = student(tmp_path, teacher, target_params=params, score=score, keep="global")
    assert 0.6 * params < record["costs"][1]["params"] <= params


def test_the_teachers_file_is_no_destination(tmp_path):
    teacher = tiny.write_teacher(tmp_path / "teacher.pkl")
    before = (tmp_path / "teacher.pkl").read_bytes()
    result = run(teacher=teacher, dest=teacher, width="0.5")
    assert result.exit_code == 1
    assert "teacher.pkl is the teacher's own file; name another" in result.output
    assert (tmp_path / "teacher.pkl").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": "0"}, "Invalid value for '--width': expected a fraction above 0 and up to 1, found 0"),
        ({"width": "1.5"}, "Invalid value for '--width': expected a fraction above 0 and up to 1, found 1.5"),
        ({"width": "nan"}, "Invalid value for '--width': expected a fraction such as 0.5 or 2/3, found 'nan'"),
        ({"width": "inf"}, "Invalid value for '--width': expected a fraction such as 0.5 or 2/3, found 'inf'"),
        ({"width": "-0.5"}, "Invalid value for '--width': expected a fraction such as 0.5 or 2/3, found '-0.5'"),
        ({"width": "1/0"}, "Invalid value for '--width': expected a fraction such as 0.5 or 2/3, found '1/0'"),
        ({"width": "3/2"}, "Invalid value for '--width': expected a fraction above 0 and up to 1, found 3/2"),
        ({"width": "1", "d_width": "0"}, "Invalid value for '--d-width': expected a fraction above 0"),
        ({"width": "1", "score": "best"}, "Invalid value for '--score': 'best' is not one of 'first', 'random'"),
        ({"width": "1", "roi": "mask.png"}, "--roi can only be given together with --score=content"),
        ({}, "pass exactly one of --width, --target-macs, --target-params and --target-ms"),
        ({"width": "1", "target_ms": "3"}, "pass exactly one of --width, --target-macs, --target-params and"),
        ({"target_macs": "-7G"}, "Invalid value for '--target-macs': expected a positive number such as 7G, 5M or 50"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(options, message, teacher, tmp_path):
    result = run(teacher=teacher, dest=tmp_path / "student.pkl", **options)
    assert result.exit_code == 2
    assert result.output.startswith(f"Error: {message}")
    assert result.output.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_one_destination(teacher, tmp_path):
    both = {"dest": tmp_path / "a.pkl", "outdir": tmp_path}
    for options in ({}, both):
        result = run(teacher=teacher, width="1", **options)
        assert (result.exit_code, result.output) == (2, "Error: pass either --dest or --outdir\n")
    result = run(teacher=teacher, width="1", dest=tmp_path / "a.bin")
    assert result.output == f"Error: --dest: expected a name ending in .pkl, found {tmp_path}/a.bin\n"


def test_an_older_student_stays_if_a_new_one_fails(teacher, tmp_path):
    student(tmp_path, teacher, width="1/2", score="first")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 2
    shutil.copy(teacher, tmp_path / "cut.pkl")
    (tmp_path / "cut.pkl").write_bytes((tmp_path / "cut.pkl").read_bytes()[:-1000])
    result = run(teacher=tmp_path / "cut.pkl", width="1/2", dest=tmp_path / "student.pkl")
    assert result.exit_code == 1
    (tmp_path / "cut.pkl").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_widths_that_no_stock_network_has_are_named(teacher, tmp_path):
    """Other people's classes know widths by resolution alone."""
    for keep, is_named in (("uniform", False), ("global", True)):
        result = run(teacher=teacher, width="0.5", keep=keep, score="l1", dest=tmp_path / f"{keep}.pkl")
        assert result.exit_code == 0, result.output
        assert ("widths are given layer by layer (layer_channels)" in result.stderr) is is_named
        options = open_networks(str(tmp_path / f"{keep}.pkl"))["G_ema"].init_kwargs.synthesis_kwargs
        assert ("layer_channels" in options) is is_named
