"""onnxruntime-web, which computes images in a browser: taken from npm, pinned by hash, kept in the cache."""
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from dnnlib.errors import UserError
from dnnlib.files import open_atomic
from dnnlib.util import make_cache_dir_path

VERSION = "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"  # of npm's archive
FILES = {"runtime.mjs": "ort.webgpu.bundle.min.mjs", "runtime.wasm": "ort-wasm-simd-threaded.asyncify.wasm"}
_ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"


def runtime_files(folder: str | os.PathLike | None = None) -> dict[str, bytes]:
    """The files of the runtime, by the names that the page uses.

    Args:
        folder: an unpacked package onnxruntime-web, or its dist/; None takes the pinned version from the cache or npm.

    Raises:
        UserError: a file is missing, npm is, or the archive has another hash.
    """
    if folder is not None:
        return {name: _in_folder(Path(folder), file) for name, file in FILES.items()}
    with tarfile.open(fetch()) as archive:
        contents = {}
        for name, file in FILES.items():
            member = archive.extractfile(f"package/dist/{file}")
            assert member is not None  # the hash was right
            contents[name] = member.read()
    return contents


def _in_folder(folder: Path, file: str) -> bytes:
    for place in (folder, folder / "dist", folder / "package" / "dist"):
        if (place / file).is_file():
            return (place / file).read_bytes()
    raise UserError(f"expected the package onnxruntime-web in {folder}, found no {file}", field="runtime")


def cached() -> Path | None:
    """The pinned archive in the cache, if it is there and right."""
    path = Path(make_cache_dir_path("onnxruntime-web"), _ARCHIVE)
    return path if path.is_file() and _sha256(path) == SHA256 else None


def fetch() -> Path:
    """The pinned archive, by npm if the cache does not have it.

    Raises:
        UserError: npm is missing or fails, or its archive has another hash.
    """
    known = cached()
    if known is not None:
        return known
    way_out = "or unpack the package onnxruntime-web and name its folder as `runtime`"
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"the page needs onnxruntime-web {VERSION}; install npm, {way_out}", field="runtime")
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run([npm, "pack", f"onnxruntime-web@{VERSION}"], cwd=folder, capture_output=True, text=True)
        path = Path(folder, _ARCHIVE)
        if run.returncode != 0 or not path.is_file():
            reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"npm cannot fetch onnxruntime-web {VERSION} ({reason}); try again, {way_out}",
                            field="runtime")
        if _sha256(path) != SHA256:
            raise UserError(f"npm's onnxruntime-web {VERSION} has the sha256 {_sha256(path)}, expected {SHA256}; "
                            f"nothing was kept; {way_out}", field="runtime")
        target = Path(make_cache_dir_path("onnxruntime-web"), _ARCHIVE)
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_atomic(target) as f:
            f.write(path.read_bytes())
    return target


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
