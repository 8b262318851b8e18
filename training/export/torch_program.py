"""Torch programs (.pt2): a generator as a graph that runs without this code, by `torch.export.load(file).module()`."""
import io
import os

import torch

from dnnlib.files import open_atomic

from .onnx_file import BATCHES, TOLERANCE, ParityError
from .programs import Program, quiet, trace


def write(program: Program, dest: str | os.PathLike) -> float:
    """Traces a program, checks the file's content for several batch sizes, and writes it.

    Returns:
        The largest difference from the network, in standard deviations of its images.

    Raises:
        UserError: the network cannot be exported, or the file cannot be written.
        ParityError: the program computes something else; nothing is written.
    """
    content = io.BytesIO()
    with quiet():
        torch.export.save(trace(program), content)
        content.seek(0)
        loaded = torch.export.load(content).module()
    worst = 0.0
    with torch.no_grad():
        for batch in BATCHES:
            args = program.examples(batch, seed=batch)
            expected = program(*args).float()
            error = (loaded(*args).float() - expected).abs().max() / expected.std()
            worst = max(worst, float(error))
    if not worst <= TOLERANCE:
        raise ParityError(f"expected the program to compute the network's images within {TOLERANCE:g} of their "
                          f"standard deviation, found a difference of {worst:.2g}; nothing was written")
    with open_atomic(dest) as f:
        f.write(content.getvalue())
    return worst
