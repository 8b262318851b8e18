"""train.py in several processes: torchrun on one and on two machines, --gpus, another number of them, a killed one."""
import contextlib
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import train
from dnnlib import locks
from tests import forks, tiny
from tests.helpers import forget_statistics, is_alive, wait_until
from training.checkpoints.pickles import NETWORKS, open_networks

TIMEOUT_SEC = 200
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
SMALL = ["--cfg=paper256", "--cbase=64", "--cmax=8", "--z-dim=8", "--w-dim=8", "--map-depth=1", "--device=cpu",
         "--metrics=none", "--workers=0", "--batch=250", "--batch-gpu=125", "--mbstd-group=5", "--aug=noaug"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.write_data(tmp_path_factory.mktemp("data") / "few", num=10, side=8)


def start(command, **env):
    pipe = subprocess.PIPE
    environment = {**os.environ, "SG_DIST_TIMEOUT_SEC": str(TIMEOUT_SEC), **env}
    return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(*processes):
    """Waits for processes; returns their outputs once all have ended well."""
    outputs = [process.communicate(timeout=TIMEOUT_SEC)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


def options(data, outdir, *more):
    return ["train.py", f"--data={data}", f"--outdir={outdir}", "--kimg=1", "--snap=50", *SMALL, *more]


def the_run(outdir):
    (run_dir,) = Path(outdir).iterdir()
    return run_dir


def tensors(run_dir):
    """All of the last snapshot."""
    networks = open_networks(str(max(run_dir.glob("network-snapshot-*.pkl"))))
    return {f"{name}.{key}": value for name in NETWORKS for key, value in networks[name].state_dict().items()}


def assert_same_result(run_dir, expected):
    actual = tensors(run_dir)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def invoke(*args):
    """train.py in this process; its ranks are others."""
    forget_statistics()
    return CliRunner().invoke(train.main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def two_gpus(data, tmp_path_factory):
    """The run directory of `--gpus=2`."""
    outdir = tmp_path_factory.mktemp("gpus")
    result = invoke(*options(data, outdir, "--gpus=2")[1:])
    assert result.exit_code == 0, result.output
    assert result.output.count("Resolved options:") == 1
    return the_run(outdir)


def test_run_of_two_processes_says_so(two_gpus):
    recorded = json.loads((two_gpus / "training_options.json").read_text())
    assert recorded["num_gpus"] == 2
    assert recorded["batch_gpu"] == 125
    for text in ("Training set: 10 images", "Training is done"):
        assert (two_gpus / "log.txt").read_text().count(text) == 1


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def node(rank, master, port):
    """How torchrun is started on one of two machines with one process each."""
    where = [f"--master-addr={master}", f"--master-port={port}"]
    return [*TORCHRUN, "--nnodes=2", "--nproc-per-node=1", f"--node-rank={rank}", *where]


class NoNamespaces(Exception):
    """Network namespaces cannot be made here."""


@contextlib.contextmanager
def two_namespaces():
    """Names and addresses of two network namespaces with a cable between them."""
    if shutil.which("ip") is None:
        raise NoNamespaces
    names = [f"sg-{os.getpid()}-{i}" for i in (0, 1)]
    addresses = ["10.213.7.1", "10.213.7.2"]

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)

    try:
        for name in names:
            if ip("netns", "add", name).returncode != 0:
                raise NoNamespaces
        near, far = ("cable0", "netns", names[0]), ("cable1", "netns", names[1])
        if ip("link", "add", *near, "type", "veth", "peer", "name", *far).returncode != 0:
            raise NoNamespaces
        for i, name in enumerate(names):
            for words in (("addr", "add", f"{addresses[i]}/24", "dev", f"cable{i}"), ("link", "set", f"cable{i}", "up"),
                          ("link", "set", "lo", "up")):
                assert ip("-n", name, *words).returncode == 0
        yield names, addresses
    finally:
        for name in names:
            ip("netns", "del", name)


def start_two_machines(options_of_run):
    """The outputs of two nodes of torchrun: in network namespaces, or on loopback where there can be none."""
    try:
        with two_namespaces() as (names, addresses):
            return finish(*[
                start(["ip", "netns", "exec", name, *node(rank, addresses[0], 29500), *options_of_run])
                for rank, name in enumerate(names)
            ])
    except NoNamespaces:
        port = free_port()
        return finish(*[start([*node(rank, "127.0.0.1", port), *options_of_run]) for rank in (0, 1)])


@pytest.mark.slow
def test_torchrun_on_two_machines_does_the_same(data, two_gpus, tmp_path):
    outputs = start_two_machines(options(data, tmp_path))
    assert ["Training is done" in output for output in outputs] == [True, False]
    assert [output.count("Resolved options:") for output in outputs] == [1, 0]
    recorded = json.loads((the_run(tmp_path) / "training_options.json").read_text())
    assert recorded["num_gpus"] == 2
    assert_same_result(the_run(tmp_path), tensors(two_gpus))


def test_a_run_is_resumed_with_another_number_of_processes(two_gpus, tmp_path, caplog):
    run_dir = shutil.copytree(two_gpus, tmp_path / two_gpus.name)
    result = invoke(f"--resume={run_dir}", "--gpus=1", "--kimg=2")
    assert result.exit_code == 0, result.output
    assert "the run is resumed with 1 instead of 2 processes" in caplog.text
    assert "Resuming from image 1,000" in (run_dir / "log.txt").read_text()
    assert (run_dir / "network-snapshot-000002.pkl").exists()


def test_number_of_processes_that_does_not_fit_the_batch(two_gpus):
    result = CliRunner().invoke(train.main, [f"--resume={two_gpus}", "--gpus=8", "--dry-run", "--no-estimate"])
    assert result.exit_code == 1
    assert ("Error: --gpus: 8 processes cannot share a batch of 250 images; this run was started with 2 and 250"
            in result.output)


def test_killed_process_ends_all_and_is_named(data, tmp_path):
    killed = []

    def kill():
        wait_until(lambda: bool(list(tmp_path.glob("*/state/*.pt"))), TIMEOUT_SEC)  # the first tick is over
        killed.extend(sorted(multiprocessing.active_children(), key=lambda rank: rank.name))
        os.kill(killed[1].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result = invoke(*options(data, tmp_path, "--gpus=2", "--kimg=10000", "--batch-gpu=25")[1:])
    killer.join()
    assert [rank.name for rank in killed] == ["rank0", "rank1"]
    assert result.exit_code == 1
    assert f"To resume this run: python train.py --resume={the_run(tmp_path)}\n" in result.output
    assert result.output.endswith("Error: rank 1 was killed by SIGKILL (the system does so when memory runs out)\n")
    wait_until(lambda: not any(is_alive(rank.pid) for rank in killed))


@pytest.mark.slow
def test_stopped_process_of_another_launcher_ends_the_others_at_the_timeout_and_is_named(data, tmp_path):
    """As under torchrun on two machines: the processes only have the environment, and nobody ends them."""
    more = ["--kimg=10000", "--batch=10", "--batch-gpu=5"]
    job = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "GLOO_SOCKET_IFNAME": "lo"}
    code = "import sys, train; train.main(sys.argv[1:])"
    ranks = [forks.Program(code, *options(data, tmp_path, *more)[1:], env={
        **os.environ, **job, "RANK": str(rank), "LOCAL_RANK": "0", "SG_DIST_TIMEOUT_SEC": "10"}) for rank in (0, 1)]
    try:
        wait_until(lambda: any(rank.poll() is not None for rank in ranks) or bool(list(tmp_path.glob("*/state/*.pt"))),
                   TIMEOUT_SEC)
        assert [rank.poll() for rank in ranks] == [None, None], [rank.finish(0) for rank in ranks]
        ranks[1].send_signal(signal.SIGSTOP)
        done = ranks[0].finish(TIMEOUT_SEC)
    finally:
        for rank in ranks:
            rank.finish(0)
    assert done.returncode == 1
    assert ("Error: rank 1 gives no sign of life: it was killed or stopped, or its machine or network is gone "
            "(noticed by rank 0)") in done.stderr
    assert f"To resume this run: python train.py --resume={the_run(tmp_path)}\n" in done.stdout + done.stderr
    assert invoke(f"--resume={the_run(tmp_path)}", "--dry-run", "--no-estimate").exit_code == 0


def dry_run(data, monkeypatch, rank, *more):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", str(rank))
    args = options(data, "/tmp", "--batch=500", "--dry-run", "--no-estimate", *more)
    return CliRunner().invoke(train.main, args[1:])


def test_under_torchrun_one_process_speaks(data, monkeypatch):
    first = dry_run(data, monkeypatch, 0)
    assert '"num_gpus": 4' in first.output
    assert first.output.endswith("Nothing was started (--dry-run).\n")
    assert dry_run(data, monkeypatch, 3).output == ""
    assert dry_run(data, monkeypatch, 0, "--gpus=4").exit_code == 0


def test_gpus_and_torchrun_must_agree(data, monkeypatch):
    result = dry_run(data, monkeypatch, 0, "--gpus=2")
    assert result.exit_code == 2
    assert "--gpus: torchrun started 4 processes, found 2; leave --gpus out" in result.output


def test_a_second_resume_of_a_running_run_is_refused(two_gpus, tmp_path):
    run_dir = shutil.copytree(two_gpus, tmp_path / two_gpus.name)
    before = sorted(path.name for path in run_dir.iterdir())
    with locks.sole_writer(run_dir):
        second = invoke(f"--resume={run_dir}", "--gpus=1", "--kimg=2")
    assert second.exit_code == 1
    message = f"Error: --resume: {run_dir}: process {os.getpid()} on {socket.gethostname()} is writing into it"
    assert message in second.stderr
    assert {path.name for path in run_dir.iterdir()} - {*before} <= {".lock"}
