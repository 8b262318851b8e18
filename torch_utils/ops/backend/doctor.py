"""Finds out what this machine has for compiled kernels, what each operation uses, and why it uses nothing faster."""
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dnnlib.errors import UserError
from torch_utils.ops import cpu_kernels, grid_sample_gradfix, registry, settings

from . import archs, cache, choice, driver, nvcc, nvrtc
from .errors import BackendError

Row = tuple[str, str]


def report() -> list[str]:
    """The findings, line by line. On a machine with GPUs this builds what has not been built."""
    rows = [*_versions(), *_compilers(), *_settings()]
    width = max(len(name) for name, _ in rows) + 2
    lines = [f"{name:<{width}}{text}" for name, text in rows]
    lines += ["", *_builds(), "", *_operations()]
    return lines


def _versions() -> list[Row]:
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    rows = [("PyTorch", f"{torch.__version__}, {cuda}")]
    count = torch.cuda.device_count()
    for index in range(count):
        rows.append((f"GPU {index}", f"{torch.cuda.get_device_name(index)}, sm_{archs.of_device(index)}"))
    if count == 0:
        rows.append(("GPU", "none that PyTorch can use"))
    rows.append(("driver", _try(lambda: f"for up to CUDA {driver.load_driver().version}")))
    return rows


def _compilers() -> list[Row]:
    def nvcc_row() -> str:
        path = nvcc.find_nvcc()
        return f"{nvcc.version(path)} for {_span(nvcc.supported_archs(path))} ({path})"

    def nvrtc_row() -> str:
        compiler = nvrtc.find()
        return f"{compiler.version} for {_span(compiler.supported_archs)} ({compiler.path})"

    host = "cl" if os.name == "nt" else os.environ.get("CXX", "g++")
    return [
        ("nvcc", _try(nvcc_row)),
        ("host compiler", shutil.which(host) or f"not found: {host} is not on the PATH; nvcc needs it"),
        ("ninja", _try(lambda: str(nvcc.find_ninja()))),
        ("NVRTC", _try(nvrtc_row)),
    ]


def _settings() -> list[Row]:
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST") or "not set: each build is for the GPU it is made for"
    return [("SG_OPS", settings.mode), ("TORCH_CUDA_ARCH_LIST", listed), ("builds in", str(cache.root()))]


def _builds() -> list[str]:
    entries = cache.entries()
    if not entries:
        return ["No builds yet."]
    return ["Builds:", *[f"  {_describe(path, manifest)}" for path, manifest in entries]]


def _describe(path: Path, manifest: dict[str, Any]) -> str:
    fits = path.name.startswith(cache.key(str(manifest.get("kind"))) + "-")
    code = [f"sm_{arch}" for arch in manifest.get("sm", ())] + [f"PTX {arch}" for arch in manifest.get("ptx", ())]
    made = f"{manifest.get('compiler')}, {manifest.get('seconds')} s"
    state = "fits" if fits else "for another PyTorch or other sources"
    return f"{manifest.get('kind')}: {', '.join(code)} ({made}); {state}"


def _operations() -> list[str]:
    devices = [torch.device("cpu"), *[torch.device("cuda", index) for index in range(torch.cuda.device_count())]]
    lines = []
    for device in devices:
        sampling = "own derivatives" if grid_sample_gradfix._use_own(device.type) else "torch's"
        rows = [(name, _implementation(op, device)) for name, op in registry.operations().items()]
        rows += [
            ("conv2d_resample", "conv3x3 or torch's convolutions, with upfirdn2d"),
            ("filtered_lrelu", "upfirdn2d and bias_act"),
            ("fma, conv2d_gradfix", "torch's"),
            ("grid_sample_gradfix", sampling),
        ]
        rows += [("not faster because", reason) for reason in _why(device)]
        lines += [f"On {device}:", *[f"  {name:<24} {text}" for name, text in rows]]
    if len(devices) == 1:
        build = "has no CUDA in it" if torch.version.cuda is None and torch.version.hip is None else "finds no GPU"
        lines.append(f"On cuda: nothing, this PyTorch {build}.")
    return lines


def _implementation(op: registry.Op, device: torch.device) -> str:
    if device.type == "cpu":
        return "plain torch" if op.cpu is None else cpu_kernels.describe()
    try:
        kernels = None if op.cuda is None else choice.kernels_for(device)
    except UserError as error:
        return f"none: {error}"
    return "plain torch" if kernels is None else f"compiled kernels ({kernels.name})"


def _why(device: torch.device) -> list[str]:
    if device.type == "cpu":
        return []
    forced = ["SG_OPS=ref selects plain torch"] if settings.mode == "ref" else []
    return [*forced, *choice.reasons(device)]


def _try(find: Callable[[], str]) -> str:
    try:
        return find()
    except BackendError as error:
        return f"not found: {error}"


def _span(supported: list[str]) -> str:
    return f"sm_{supported[0]} to sm_{supported[-1]}"
