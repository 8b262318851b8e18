"""Section: NCCL with one rank, in a process of its own; on a CPU gloo stands in for it."""
import subprocess
import sys
from pathlib import Path

from .section import Row, Setup

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys, torch, torch.distributed as dist
device, folder = sys.argv[1:]
backend = "nccl" if device.startswith("cuda") else "gloo"
dist.init_process_group(backend, init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
x = torch.arange(5.0, device=device)
dist.all_reduce(x)
dist.broadcast(x, src=0)
gathered = [torch.empty_like(x)]
dist.all_gather(gathered, x)
dist.barrier()
assert torch.equal(gathered[0].cpu(), torch.arange(5.0)), gathered
dist.destroy_process_group()
print(backend)
"""


def collectives(setup: Setup) -> list[Row]:
    """all_reduce, broadcast, all_gather and barrier."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(setup.device), str(setup.folder)], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)  # fmt: skip
    result = done.stdout.strip() if done.returncode == 0 else " ".join(done.stderr.strip().splitlines()[-1:])
    return [{"what": "all_reduce, broadcast, all_gather, barrier", "backend or error": result,
             "ok": done.returncode == 0}]  # fmt: skip
