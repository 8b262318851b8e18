"""benchmarks/stylegan3_teacher.py: a StyleGAN3 that begins to draw what the demo's teacher draws."""
from pathlib import Path

import torch
from click.testing import CliRunner

from benchmarks import stylegan3_teacher
from training import networks_stylegan3
from training.checkpoints.pickles import open_networks


def test_a_few_steps(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    result = CliRunner().invoke(stylegan3_teacher.main, [f"--dest={tmp_path / 'x.pkl'}", "--kimg=0.016"])
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    nets, teacher = open_networks(str(tmp_path / "x.pkl")), open_networks(str(stylegan3_teacher.TEACHER))
    G = nets["G_ema"]
    assert isinstance(G, networks_stylegan3.Generator)
    z = torch.randn([2, G.z_dim])
    assert torch.equal(G.mapping(z, None)[:, 0], teacher["G_ema"].mapping(z, None)[:, 0])
    assert G(z, None).shape == teacher["G_ema"](z, None).shape
    assert nets["D"].img_resolution == G.img_resolution


def test_the_rate_rises_and_falls_to_nothing() -> None:
    rates = [stylegan3_teacher.rate(step, 1000) for step in range(1001)]
    assert max(rates) == stylegan3_teacher.LR
    assert rates[0] == stylegan3_teacher.LR / stylegan3_teacher.WARMUP_STEPS
    assert rates[-1] == 0
