"""train.py --resume=RUN with other batches and other numbers of processes: what it computes with, and what it says."""
import json

import pytest
from click.testing import CliRunner

import train
from tests import tiny


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A run directory in which nothing has been trained: batches of 16, passes of 8, groups of 4."""
    folder = tmp_path_factory.mktemp("resumed")
    data = tiny.write_data(folder / "data")
    args = [f"--data={data}", "--outdir=/tmp", "--cfg=stylegan2", "--batch=16", "--batch-gpu=8", "--dry-run",
            "--no-estimate"]
    shown = CliRunner().invoke(train.main, args)
    (folder / "training_options.json").write_text(shown.stdout.partition("\n")[2].rpartition("\n\n")[0])
    return folder


@pytest.mark.parametrize(
    ("args", "expected", "warnings"),
    [
        ("--batch=32", (32, 8, 1), ["batches of 32 instead of 16 images"]),
        ("--batch=8 --gpus=2", (8, 4, 2), ["2 instead of 1 processes", "batches of 8 instead of", "passes are of 4"]),
        ("--gpus=4", (16, 4, 4), ["4 instead of 1 processes", "passes are of 4 instead of 8 images, over which"]),
        ("--batch=12", (12, 4, 1), ["batches of 12 instead of 16 images", "passes are of 4"]),
        ("--batch-gpu=16", (16, 16, 1), ["passes are of 16 instead of 8 images"]),
        ("--batch=16 --gpus=1", (16, 8, 1), []),
    ],
)
def test_a_run_resumes_with_other_batches_and_processes(args, expected, warnings, run_dir, caplog):
    result = CliRunner().invoke(train.main, [f"--resume={run_dir}", "--dry-run", "--no-estimate", *args.split()])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout.split("Resolved options:\n")[1].split("\n\nNothing was started")[0])
    assert (shown["batch_size"], shown["batch_gpu"], shown["num_gpus"]) == expected
    assert len(caplog.messages) == len(warnings)
    assert all(part in message for part, message in zip(warnings, caplog.messages))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--gpus=32", "--gpus: 32 processes cannot share a batch of 16 images; this run was started with 1 and 16"),
        ("--batch-gpu=3", "--batch-gpu: the 16 images of a process are not a multiple of 3"),
        ("--batch=12 --batch-gpu=6", "--mbstd-group: the group of 4 does not divide the 6 images of one pass (--batch"),
    ],
)
def test_batches_and_processes_that_do_not_fit(args, message, run_dir):
    result = CliRunner().invoke(train.main, [f"--resume={run_dir}", "--dry-run", "--no-estimate", *args.split()])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {message}")
