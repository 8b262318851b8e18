"""Training a StyleGAN3 of a few channels for a few iterations, by train.py's own command line."""
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.training import tiny_runs
from training import networks_stylegan3
from training.checkpoints import pickles

STYLEGAN3 = ["--cfg=stylegan3-r", "--cbase=64", "--cmax=4", "--z-dim=16", "--w-dim=16", "--batch=4", "--mbstd-group=2",
             "--workers=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.write_data(tmp_path_factory.mktemp("data") / "images", num=6)


def test_a_run_trains_resumes_and_writes_networks(data: str, tmp_path: Path) -> None:
    config = tiny_runs.options(data, *STYLEGAN3, total_kimg=0.012, kimg_per_tick=0.008, network_snapshot_ticks=1)
    whole = tiny_runs.run(tmp_path / "whole", config)
    records = tiny_runs.records(whole)
    assert all("Loss/G/reg" not in record for record in records)
    assert "Loss/r1_penalty" in records[0]
    networks = pickles.open_networks(str(sorted(whole.glob("network-snapshot-*.pkl"))[-1]))
    G = networks["G_ema"]
    assert isinstance(G, networks_stylegan3.Generator)
    assert G.synthesis.input.channels == 8
    assert G.mapping.w_avg.any()
    assert G.synthesis.get_submodule(G.synthesis.layer_names[2]).magnitude_ema != 1
    assert G(torch.randn(1, 16), None).isfinite().all()
    first = tiny_runs.run(tmp_path / "parts", {**config, "total_kimg": 0.008})
    again = tiny_runs.run(first, config, resume_state=True)
    assert not tiny_runs.differences(tiny_runs.last_state(again), tiny_runs.last_state(whole))
