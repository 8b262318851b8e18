"""A StyleGAN3 student in another code base, which has our text and neither our operations nor filtered_lrelu."""
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from dgl import prune
from dgl.architectures import plan_of
from tests.tiny import tiny_discriminator
from tests.training.test_networks_stylegan3 import tiny
from training.checkpoints import pickles

HOST = Path(__file__).parent / "stock_host"
PROGRAM = """
import copy, pickle, sys
import torch
with open(sys.argv[1], "rb") as f:
    G = pickle.load(f)["G_ema"]
assert hasattr(G.synthesis, "input") and not G.training
z = torch.load(sys.argv[2])
matrix = torch.eye(3, dtype=torch.float64)
matrix[0, 2] = 0.25
images = [G(z.double(), None, truncation_psi=0.7, noise_mode="const")]
copy.deepcopy(G).synthesis.input.transform.copy_(matrix)
G.synthesis.input.transform.copy_(matrix)
images.append(G.synthesis(ws=G.mapping(z=z, c=None), force_fp32=True))
again = pickle.loads(pickle.dumps(G))
images.append(type(again)(*again.init_args, **again.init_kwargs)(z, None) * 0)
torch.save(torch.stack(images), sys.argv[3])
"""


def test_a_student_runs_in_another_tree(tmp_path: Path) -> None:
    G = tiny(channel_max=16, conv_clamp=0.5, use_radial_filters=True)
    keep = {name: torch.arange(size)[: size - i % 3] for i, (name, size) in enumerate(plan_of(G).sets.items())}
    student = prune.slice_network(G, {**keep, "features": keep["input"]})
    assert "layer_channels" in student.init_kwargs  # type: ignore[operator]
    nets = {"G": student, "D": tiny_discriminator(), "G_ema": student, "augment_pipe": None}
    pickles.save_networks(pickles.snapshot_data(nets, None), tmp_path / "student.pkl")
    z = torch.from_numpy(np.random.RandomState(0).randn(2, 8)).float()
    torch.save(z, tmp_path / "z.pt")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    command = [sys.executable, "-B", "-c", PROGRAM, *(str(tmp_path / name) for name in ("student.pkl", "z.pt", "y.pt"))]
    done = subprocess.run(command, cwd=HOST, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loaded = torch.load(tmp_path / "y.pt")
    net = student
    expected = [net(z, None, truncation_psi=0.7)]
    net.synthesis.input.transform[0, 2] = 0.25  # type: ignore[index, union-attr]
    expected.append(net.synthesis(net.mapping(z, None)))  # type: ignore[operator]
    for image, reference in zip(loaded, expected):
        torch.testing.assert_close(image, reference, atol=1e-5, rtol=0)
