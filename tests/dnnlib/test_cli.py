"""Option types and the one-line errors of commands."""
import os
import pickle
import subprocess
import sys
from fractions import Fraction

import click
import numpy as np
import pytest
from click.testing import CliRunner

from dnnlib import cli
from dnnlib.errors import FileError, UserError


def run(command, *args):
    return CliRunner().invoke(command, args)


def test_user_error_is_one_line_and_status_1():
    @click.command(cls=cli.Command)
    def main():
        raise FileError("a.pkl: no such file")

    result = run(main)
    assert result.exit_code == 1
    assert result.output == "Error: a.pkl: no such file\n"


def test_the_option_of_a_file_is_named():
    @click.command(cls=cli.Command)
    @click.option("--network", metavar="PKL")
    @click.option("--teacher", multiple=True)
    def main(network, teacher):
        raise FileError("b.pkl: no such file")

    assert run(main, "--network=b.pkl", "--teacher=a.pkl").output == "Error: --network: b.pkl: no such file\n"
    assert run(main, "--network=a.pkl", "--teacher=c", "--teacher=b.pkl").output.startswith("Error: --teacher: b.pkl:")
    assert run(main, "--network=b.pkl", "--teacher=b.pkl").output == "Error: b.pkl: no such file\n"
    assert run(main, "--network=b").output == "Error: b.pkl: no such file\n"


def test_group_and_its_commands_do_the_same():
    @click.group(cls=cli.Group, invoke_without_command=True)
    @click.option("--bad", is_flag=True)
    def main(bad):
        if bad:
            raise UserError("bad group")

    @main.command()
    def check():
        raise UserError("bad command")

    assert isinstance(check, cli.Command)
    assert run(main, "check").output == "Error: bad command\n"
    assert run(main, "--bad").output == "Error: bad group\n"
    assert run(main, "check").exit_code == 1


def test_other_errors_stay_errors():
    @click.command(cls=cli.Command)
    def main():
        raise ZeroDivisionError("a bug")

    assert isinstance(run(main).exception, ZeroDivisionError)


def test_closed_pipe_is_quiet():
    code = (
        "import click, dnnlib.cli\n"
        "@click.command(cls=dnnlib.cli.Command)\n"
        "def main():\n"
        "    for i in range(100000): click.echo(str(i))\n"
        "main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", [3]),
        ("1,3,5-8", [1, 3, 5, 6, 7, 8]),
        (" 7 , 2 - 3 ", [7, 2, 3]),
        ("4-4,4", [4, 4]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_parse_seeds(text, seeds):
    assert cli.parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected numbers and ranges such as 1,3,5-8, found ''"),
        ("1,,2", "found ''"),
        ("a", "found 'a'"),
        ("-1", "found '-1'"),
        ("1-2-3", "found '1-2-3'"),
        ("8-5", "a range goes upwards, found '8-5'"),
        ("4294967296", "seeds go from 0 to 4294967295, found 4294967296"),
    ],
)
def test_parse_seeds_errors(text, message):
    with pytest.raises(ValueError, match=message):
        cli.parse_seeds(text)


@click.command(cls=cli.Command)
@click.option("--seeds", type=cli.SeedList(), default="0-2")
@click.option("--names", type=cli.CommaList(), default="none")
@click.option("--width", type=cli.Fraction01(), default=1)
@cli.device_option
@cli.trust_pickle_option
def show(**options):
    return options


def options_of(*args):
    return show.main(list(args), standalone_mode=False)


def test_defaults():
    expected = {"seeds": [0, 1, 2], "names": [], "width": Fraction(1), "device": "auto", "trust_pickle": False}
    assert options_of() == expected


@pytest.mark.parametrize(
    ("text", "value"), [("0.57", Fraction(57, 100)), ("2/3", Fraction(2, 3)), ("1", 1), (".5", Fraction(1, 2))]
)
def test_fraction(text, value):
    assert options_of(f"--width={text}")["width"] == value


@pytest.mark.parametrize("text", ["nan", "inf", "x", "", ".", "1/0", "-0.5", "1e-3", "1/2/3", "-1/2"])
def test_fraction_errors(text):
    result = run(show, f"--width={text}")
    assert result.exit_code == 2
    assert f"Invalid value for '--width': expected a fraction such as 0.5 or 2/3, found {text!r}" in result.output


@pytest.mark.parametrize("text", ["0", "1.5", "3/2", "0/1"])
def test_fraction_out_of_range(text):
    result = run(show, f"--width={text}")
    assert result.exit_code == 2
    assert f"Invalid value for '--width': expected a fraction above 0 and up to 1, found {text}" in result.output


@pytest.mark.parametrize(("text", "names"), [("a,b", ["a", "b"]), (" a ", ["a"]), ("None", []), ("", [])])
def test_comma_list(text, names):
    assert options_of("--names", text)["names"] == names


def test_list_errors():
    assert "Invalid value for '--names': expected names with commas between them" in run(show, "--names=a,,b").output
    assert "Invalid value for '--seeds': expected numbers and ranges" in run(show, "--seeds=x").output
    assert "'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'" in run(show, "--device=tpu").output


def test_options_reach_the_command():
    options = options_of("--device=cpu", "--trust-pickle", "--seeds=5")
    assert (options["device"], options["trust_pickle"], options["seeds"]) == ("cpu", True, [5])


def test_types_take_their_own_values():
    assert cli.SeedList().convert([1], None, None) == [1]
    assert cli.CommaList().convert(["a"], None, None) == ["a"]
    assert cli.Fraction01().convert(Fraction(1, 3), None, None) == Fraction(1, 3)


def test_latents_of_seeds():
    latents = cli.seed_latents([3, 0, 3], 5)
    assert latents.dtype == np.float32
    np.testing.assert_array_equal(latents[[0, 2]], np.random.RandomState(3).randn(1, 5).astype(np.float32).repeat(2, 0))
    assert cli.seed_latents([1], 0).shape == (1, 0)


def test_label_of_a_class(capsys):
    np.testing.assert_array_equal(cli.class_label(3, 1), [[0, 1, 0]])
    assert cli.class_label(0, None).shape == (1, 0)
    assert capsys.readouterr().err == ""
    assert cli.class_label(0, 2).shape == (1, 0)
    assert capsys.readouterr().err == "Warning: --class has no effect, this network knows no classes\n"


def test_classes_that_do_not_exist():
    with pytest.raises(UserError, match="class_idx: give the class of the images, 0 to 2"):
        cli.class_label(3, None)
    with pytest.raises(UserError, match="class_idx: this network has classes 0 to 2, found 3"):
        cli.class_label(3, 3)


def test_arguments_in_a_library_error_are_shown_as_flags():
    @click.command(cls=cli.Command, fields={"batch_size": "batch"})
    @click.option("--batch")
    @click.option("--trust-pickle", is_flag=True)
    @click.option("--teacher-aug/--no-teacher-aug")
    @click.option("-n", "--dry-run", is_flag=True)
    def command(**options):
        raise UserError("too large; pass `batch_size=8`, `trust_pickle=True`, `teacher_aug=false`, `dry_run` or "
                        "`unknown=1`", field="batch_size")

    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert result.output == ("Error: --batch: too large; pass --batch=8, --trust-pickle, --no-teacher-aug, --dry-run "
                             "or `unknown=1`\n")


def test_a_field_without_a_flag_keeps_its_name():
    @click.command(cls=cli.Command)
    def command():
        raise UserError("expected a number", field="G_kwargs")

    assert CliRunner().invoke(command, []).output == "Error: G_kwargs: expected a number\n"


def test_a_caller_in_python_reads_the_names_that_he_passed():
    error = UserError("expected at most 8; pass `batch=8`", field="batch")
    assert str(error) == "batch: expected at most 8; pass `batch=8`"
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.field) == (str(error), "batch")


def test_file_errors_have_fields_too():
    error = FileError("a.png: cannot be read", field="source")
    assert isinstance(error, OSError)
    assert str(error) == "source: a.png: cannot be read"


@click.command(cls=cli.Command)
@cli.class_option
@click.option("--trunc", type=cli.FiniteFloat(), default=1)
@click.option("--data", metavar="PATH")
@click.option("--desc", metavar="STR")
def label_and_path(**options):
    return options


def test_classes_and_labels():
    for text, value in [("7", 7), ("0.5,0.5", (0.5, 0.5)), ("1.0", (1.0,)), ("1,-2e-1", (1.0, -0.2)),
                        ("0-2", range(3))]:
        assert label_and_path.main([f"--class={text}"], standalone_mode=False)["class_idx"] == value
        assert label_and_path.main([f"--label={text}"], standalone_mode=False)["class_idx"] == value
    for text in ("x", "", "1,,2", "nan,0", "1,inf"):
        message = f"expected a class number, a range of them, or numbers with commas between them, found {text!r}"
        assert message in run(label_and_path, f"--class={text}").output
    np.testing.assert_array_equal(cli.class_label(3, (0.25, 0.75, 0)), np.float32([[0.25, 0.75, 0]]))
    with pytest.raises(UserError, match="class_idx: this network takes labels of 3 numbers, found 2"):
        cli.class_label(3, (0.5, 0.5))


@pytest.mark.parametrize("text", ["nan", "-inf", "x", "1e999"])
def test_numbers_must_be_finite(text):
    assert f"Invalid value for '--trunc': expected a finite number, found '{text}'" in run(
        label_and_path, f"--trunc={text}"
    ).output
    assert label_and_path.main(["--trunc=-0.5"], standalone_mode=False)["trunc"] == -0.5


def test_home_folder_in_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for args in (["--data=~/x", "--desc=~/x"], ["--data", "~/x", "--desc", "~/x"]):
        options = label_and_path.main(args, standalone_mode=False)
        assert (options["data"], options["desc"]) == ("/home/me/x", "~/x")


@pytest.mark.parametrize("metavar", ["PNG", "[MASK.png|MODULE:FUNCTION]", "DIR", "[PATH|URL]"])
def test_home_folder_whatever_the_path_is_called(metavar: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")

    @click.command(cls=cli.Command)
    @click.option("--file", metavar=metavar)
    def main(file: str) -> str:
        return file

    assert main.main(["--file=~/x"], standalone_mode=False) == "/home/me/x"


def test_options_may_be_spelled_with_underscores() -> None:
    @click.command(cls=cli.Command)
    @click.option("--projected-w", metavar="FILE")
    @click.option("--kind", type=click.Choice(["a_b", "c"]), default="c")
    def main(projected_w: str, kind: str) -> None:
        click.echo(f"{projected_w} {kind}")

    result = CliRunner().invoke(main, ["--projected_w=my_file", "--kind=a_b"])
    assert result.output == "my_file a_b\n"
    assert CliRunner().invoke(main, ["--projected_w=~/x"]).output == f"{os.path.expanduser('~/x')} c\n"
