"""A family of networks that is added from outside is loaded, trained, resumed, sliced and counted like the others."""
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import generate
import prune_init
import train
from dgl.architectures import costs_of, plan_of
from dgl.prune import slice_network
from tests import tiny, toy_family
from tests.training import tiny_runs
from training import architectures
from training.checkpoints.pickles import open_networks

ARGS = ["--cfg=toy", "--batch=4", "--workers=0", "--cond=1"]


@pytest.fixture(scope="module", autouse=True)
def _registered() -> None:
    toy_family.register()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "images", side=8, num_classes=3)


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_runs.run(tmp_path_factory.mktemp("runs") / "unbroken", options(data), total_kimg=0.016)


def options(data: str, *args: str) -> dict[str, Any]:
    return tiny_runs.options(data, *ARGS, *args, D_reg_interval=None)


def networks_of(folder: Path) -> dict[str, Any]:
    return open_networks(str(max(folder.glob("network-snapshot-*.pkl"))))


def test_it_is_trained_for_a_tick_and_its_snapshot_loads(run: Path) -> None:
    nets = networks_of(run)
    assert {type(nets[name]).__name__ for name in ("G", "G_ema", "D")} == {"ToyGenerator", "ToyDiscriminator"}
    assert architectures.of_network(nets["G"]) is toy_family.ROW
    last = tiny_runs.last_state(run)
    assert last["cur_nimg"] == 16
    for name, tensor in nets["G"].state_dict().items():
        assert torch.equal(tensor, last["networks"]["G"][name])
    assert nets["G"].mean_z.abs().sum() > 0


def test_it_is_resumed_exactly(run: Path, data: str, tmp_path: Path) -> None:
    config = options(data)
    folder = tiny_runs.run(tmp_path / "resumed", config, total_kimg=0.008)
    tiny_runs.run(folder, config, total_kimg=0.016, resume_state=True)
    for name, network in networks_of(run).items():
        if isinstance(network, torch.nn.Module):
            result = networks_of(folder)[name].state_dict()
            assert all(torch.equal(tensor, result[key]) for key, tensor in network.state_dict().items()), name


def test_it_is_started_from_a_pickle(run: Path, data: str, tmp_path: Path) -> None:
    pickle = max(run.glob("network-snapshot-*.pkl"))
    config = options(data, f"--resume={pickle}")
    tiny_runs.run(tmp_path / "next", config, total_kimg=0.004)
    assert (tmp_path / "next" / "network-snapshot-000000.pkl").exists()


def test_it_is_sliced_and_counted(run: Path) -> None:
    G = networks_of(run)["G_ema"]
    assert sum(layer.macs_in for layer in costs_of(G)) == 8 * (4 + 3) + 8 * 3 * 64
    plan = plan_of(G)
    with torch.no_grad():
        G.out.weight[:, ::2] = 0
    narrow = slice_network(G, {"hidden": torch.arange(1, 8, 2)})
    z, c = torch.randn([5, 4], generator=torch.Generator().manual_seed(0)), torch.eye(3)[[0, 1, 2, 0, 1]]
    assert plan.scaled(Fraction(1, 2)) == {"hidden": 4}
    assert torch.allclose(narrow(z, c), G(z, c), atol=1e-6), "channels that nothing reads make no difference"
    assert len(narrow.hidden.weight) == 4


def test_commands_work_with_it(run: Path, tmp_path: Path) -> None:
    pickle = max(run.glob("network-snapshot-*.pkl"))
    student = tmp_path / "student.pkl"
    flags = ["--width=0.5", "--score=l1", "--device=cpu", "--no-latency"]
    result = CliRunner().invoke(prune_init.main, [f"--teacher={pickle}", f"--dest={student}", *flags])
    assert result.exit_code == 0, result.output
    assert open_networks(str(student))["G_ema"].hidden.weight.shape[0] == 4
    flags = ["--seeds=0", "--class=1", "--device=cpu", f"--outdir={tmp_path}/images"]
    result = CliRunner().invoke(generate.main, [f"--network={student}", *flags])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "images").glob("*.png"))) == 1


def test_options_of_other_families_are_refused(data: str, tmp_path: Path) -> None:
    for flag in ("--gamma=1", "--ch=4"):
        args = [*ARGS, flag, f"--data={data}", f"--outdir={tmp_path}", "--dry-run", "--no-estimate"]
        result = CliRunner().invoke(train.main, args)
        assert result.exit_code == 2
        assert flag.partition("=")[0] in result.output
