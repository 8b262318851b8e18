"""What the processes of test_distributed_training.py do. At the top level of a module, so that they can be started."""
import hashlib
import os
import signal
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tests.training import tiny_runs
from torch_utils import distributed, training_stats
from training import augment, loss, networks
from training.checkpoints import pickles

CPU = torch.device("cpu")
BATCH = 8
PHASES = ["Gmain", "Greg", "Greg", "Gboth", "Dmain", "Dreg", "Dboth"]  # the second Greg starts from another pl_mean


class WholeBatchDraws:
    """torch, but every rank draws the whole batch and takes its own samples of it; float32 is float64."""

    float32 = torch.float64

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def _own(self, draw: Any, shape: Any) -> torch.Tensor:
        if not shape:
            return draw([])
        return own_samples(draw([shape[0] * distributed.world_size(), *shape[1:]]))

    def randn(self, shape: Any, device: Any = None) -> torch.Tensor:
        return self._own(lambda size: torch.randn(size, generator=self.generator, dtype=torch.float64), shape)

    def randn_like(self, x: torch.Tensor) -> torch.Tensor:
        return self.randn(list(x.shape))

    def rand(self, shape: Any, device: Any = None) -> torch.Tensor:
        return self._own(lambda size: torch.rand(size, generator=self.generator, dtype=torch.float64), shape)

    def randint(self, low: int, high: int, shape: Any, device: Any = None) -> torch.Tensor:
        return self._own(lambda size: torch.randint(low, high, size, generator=self.generator), shape)


def own_samples(whole: torch.Tensor) -> torch.Tensor:
    """The rows of a batch that this rank works on."""
    return whole[distributed.rank() :: distributed.world_size()]


def compute_gradients(group_size: int) -> dict[str, Any]:
    """Gradients of every phase, averaged over the ranks, and all that the phases leave behind."""
    G = tiny.tiny_generator(c_dim=2).double().train()
    D = tiny.tiny_discriminator(c_dim=2, epilogue_kwargs={"mbstd_group_size": group_size}).double().train()
    pipe = augment.AugmentPipe(**augment.AUGPIPE_PRESETS["bgc"]).double().train()
    pipe.p.fill_(0.7)
    losses = loss.StyleGAN2Loss(CPU, G, D, augment_pipe=pipe, r1_gamma=3)
    losses.pl_mean = losses.pl_mean.double()
    z, c = tiny.latents(BATCH, c_dim=2)
    batch = {"real_img": tiny.images(BATCH).double(), "real_c": c.double(), "gen_z": z.double(), "gen_c": c.double()}
    collector = training_stats.Collector()
    collected: dict[str, Any] = {}
    draws = WholeBatchDraws()
    for module in (loss, networks, augment):
        module.torch = draws  # type: ignore[attr-defined]
    try:
        for step, phase in enumerate(PHASES):
            network = G if phase[0] == "G" else D
            network.zero_grad(set_to_none=True)
            network.requires_grad_(True)
            local = {name: own_samples(whole) for name, whole in batch.items()}
            losses.accumulate_gradients(*tiny.split_phase(phase), loss.Step(**local, gain=4, cur_nimg=0))
            network.requires_grad_(False)
            gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
            distributed.mean_(list(gradients.values()))
            collected[f"{step} {phase}"] = gradients
    finally:
        for module in (loss, networks, augment):
            module.torch = torch  # type: ignore[attr-defined]
    distributed.mean_([G.mapping.w_avg])
    collector.update()
    collected["state"] = {"w_avg": G.mapping.w_avg, "pl_mean": losses.pl_mean}
    collected["statistics"] = {name: dict(values) for name, values in collector.as_dict().items() if "Loss" in name}
    return collected


def gradients(folder: str, group_sizes: list[int]) -> None:
    """Stores `compute_gradients` of every rank."""
    distributed.init()
    training_stats.init_multiprocessing(distributed.rank(), CPU)
    result = {size: compute_gradients(size) for size in group_sizes}
    torch.save(result, Path(folder, f"rank{distributed.rank()}.pt"))
    distributed.shutdown()


def loop_options(data: str, **changes: Any) -> dict[str, Any]:
    """A training of a few iterations, with everything that has a state: ADA, both regularisations, labels."""
    args = [*tiny_runs.STYLEGAN2, "--cond=true", "--gpus=2", "--batch=8", "--batch-gpu=2", "--device=cpu", "--aug=ada"]
    often = {"kimg_per_tick": 0.032, "network_snapshot_ticks": 1, "D_reg_interval": 2, "ada_interval": 2}
    return tiny_runs.options(data, *args, ada_kimg=0.1, **{**often, **changes})


def digest(module: torch.nn.Module) -> str:
    """A hash of all parameters and buffers."""
    tensors = module.state_dict().values()
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def train(folder: str, runs: list[tuple[str, dict[str, Any]]]) -> None:
    """Trains in several folders with their options; stores what every rank would have put into its snapshots."""
    distributed.init()
    snapshots = []
    snapshot_data = pickles.snapshot_data

    def note(*args: Any) -> dict[str, Any]:
        data = snapshot_data(*args)
        names = [name for name in (*pickles.NETWORKS, "augment_pipe") if data[name] is not None]
        snapshots.append({name: digest(data[name]) for name in names})
        return data

    pickles.snapshot_data = note
    for run_dir, options in runs:
        tiny_runs.run(Path(run_dir), options)
    torch.save(snapshots, Path(folder, f"rank{distributed.rank()}.pt"))
    distributed.shutdown()


def train_and_die(run_dir: str, options: dict[str, Any]) -> None:
    """Trains; at the second tick rank 1 is gone."""
    distributed.init()

    def tick(cur_kimg: int, total_kimg: int) -> None:
        if distributed.rank() == 1 and Path(run_dir, "state").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    tiny_runs.run(Path(run_dir), options, progress_fn=tick)


def continue_apart(run_dir: str, options: dict[str, Any]) -> None:
    """Rank 1 looks for the state in another folder, as on a machine that does not share the first one's disk."""
    distributed.init()
    folder = Path(run_dir) if distributed.is_main() else Path(run_dir, "elsewhere")
    tiny_runs.run(folder, options, resume_state=True)
