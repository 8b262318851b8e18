"""The data set emoji64, on small made-up archives and on the committed list; its teacher's order of work."""
import hashlib
import io
import itertools
import json
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import train
from benchmarks import emoji64_teacher
from benchmarks.emoji64 import __main__ as command
from benchmarks.emoji64 import archives, collection, pictures
from dnnlib.errors import UserError
from tests.helpers import random_images, write_images, zip_folder
from training.checkpoints import pickles

TONE = "1f3fb 1f3fc 1f3fd 1f3fe 1f3ff".split()
NAMES = ["1f600", "1f601", "00a9-fe0f", *(f"{person}-{tone}-200d-1f33e" for person in ("1f468", "1f469", "1f9d1")
                                          for tone in TONE), "1f468-200d-1f33e"]


def encoded(name: str, vendor: str, file_format: str, shape: tuple[int, int]) -> bytes:
    """An image of an emoji with a transparent left half; its colour depends on name and vendor."""
    pixels = np.zeros([*shape, 4], np.uint8)
    pixels[:, shape[1] // 2 :, :3] = list(hashlib.sha256(f"{name} {vendor}".encode()).digest()[:3])
    pixels[:, shape[1] // 2 :, 3] = 255
    with io.BytesIO() as file:
        PIL.Image.fromarray(pixels).save(file, file_format, lossless=True)
        return file.getvalue()


def pack(path: Path, files: dict[str, bytes]) -> str:
    """Writes an archive as npm's are; returns its digest."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"package/package.json": b"{}", **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of three vendors; the second has one image twice, the third is larger and not square."""
    place = tmp_path_factory.mktemp("archives")
    for vendor, where, suffix, shape in (("google", "img/google/64", "png", (64, 64)),
                                         ("twitter", "img/twitter/64", "png", (64, 64)),
                                         ("fluent", "assets", "webp", (136, 128))):
        files = {f"package/{where}/{name}.{suffix}": encoded(name, vendor, suffix, shape) for name in NAMES}
        if vendor == "twitter":
            files[f"package/{where}/1f601.png"] = files[f"package/{where}/1f600.png"]
        pack(place / f"{vendor}.tgz", files)
    return place


@pytest.fixture(scope="module")
def known(folder: Path) -> tuple[archives.Archive, ...]:
    return tuple(
        archives.Archive(a.vendor, a.package, f"{a.vendor}.tgz",
                         hashlib.sha256((folder / f"{a.vendor}.tgz").read_bytes()).hexdigest(), a.image)
        for a in archives.ARCHIVES
    )


@pytest.mark.parametrize(("name", "expected"), [
    ("1f600", "1f600"),
    ("00a9-fe0f", "a9"), ("a9-fe0f", "a9"),
    ("1f469-1f3fb-200d-1f33e", "1f9d1-1f33e"), ("1f468-200d-1f33e", "1f9d1-1f33e"),
    ("1f3c3-1f3fb-200d-2640-fe0f-200d-27a1-fe0f", "1f3c3"),
    ("1f468-200d-2764-fe0f-200d-1f48b-200d-1f468", "1f48f"),
    ("1f46d-1f3fc", "1f46b"), ("1f9d1-1f3fb-200d-1f91d-200d-1f9d1-1f3ff", "1f46b"),
    ("1f468-200d-1f469-200d-1f467-200d-1f466", "1f46a"),
    ("1faf1-1f3fb-200d-1faf2-1f3fc", "1f91d"),
    ("1f478", "1fac5"), ("1f9d1-200d-1f384", "1f385"), ("1f936", "1f385"),
    ("1f3f4-e0067-e0062-e0065-e006e-e0067-e007f", "1f3f4-e0067-e0062-e0065-e006e-e0067"),
    ("1f3f4-e0067_e0062_e0065_e006e_e0067", "1f3f4-e0067-e0062-e0065-e006e-e0067"),
    ("2640-fe0f", "2640"), ("1f3fb", "1f3fb"), ("27a1-fe0f", "27a1"),
    ("0030-fe0f-20e3", "30-20e3"),
])
def test_picture_of_an_emoji(name: str, expected: str) -> None:
    assert pictures.picture(name) == expected


def test_pictures_with_one_image_are_split_together() -> None:
    names = [f"1f6{number:02x}" for number in range(100)]
    alone = pictures.split(names)
    assert 5 < sum(alone.values()) < 40
    chain = pictures.split(names, list(itertools.pairwise(names)))
    assert len(set(chain.values())) == 1, "directly or over others"
    groups = pictures.joined("abcdef", [("e", "c"), ("b", "e"), ("f", "d")])
    assert groups == {"a": "a", "b": "b", "c": "b", "d": "d", "e": "b", "f": "d"}


def test_collection_of_made_up_archives(folder: Path, known: tuple[archives.Archive, ...], tmp_path: Path) -> None:
    items = collection.collect(known, folder, (255, 0, 0))
    assert len(items) == 3 * len(NAMES) - 1, "one of two identical images is left out"
    farmers = {item.is_for_test for item in items if "1f33e" in item.name}
    assert sum("1f33e" in item.name for item in items) == 3 * 16
    assert len(farmers) == 1, "tones, genders and vendors are on one side"
    assert len({item.is_for_test for item in items if item.name in ("1f600", "1f601")}) == 1, "they share an image"
    for item in items:
        assert item.pixels.shape == (64, 64, 3)
        assert (item.pixels[:, :28] == [255, 0, 0]).all(), "the background"
        colour = list(hashlib.sha256(f"{item.name} {known[item.vendor].vendor}".encode()).digest()[:3])
        assert (item.pixels[:, 36:] == colour).all(), "the image itself"

    dest = tmp_path / "e.zip"
    collection.write(items, known, dest, (255, 0, 0), "whose")
    assert (tmp_path / "e.attribution.md").read_text() == "whose"
    total = 0
    for path, is_for_test in ((dest, False), (tmp_path / "e-test.zip", True)):
        with zipfile.ZipFile(path) as file:
            labels = dict(json.loads(file.read("dataset.json"))["labels"])
            assert labels == {f"{known[item.vendor].vendor}/{item.name}.png": item.vendor for item in items
                              if item.is_for_test == is_for_test}
            assert {*file.namelist()} == {*labels, "dataset.json"}
            total += len(labels)
    assert total == len(items)

    text = collection.listing(items, known)
    collection.check_listed(items, known, text)
    assert re.search(r"^(test|train)\t1f601\t[0-9a-f]{12}\t-\t[0-9a-f]{12}$", text, re.MULTILINE)
    with pytest.raises(UserError, match=r"archives: expected the images of images\.tsv, found 1 lines.* 1f601 .* is "
                                        r"not in it"):
        collection.check_listed(items, known, re.sub(".*1f601.*\n", "", text))


def test_archives_that_are_missing_or_other_ones_are_named(
    folder: Path, known: tuple[archives.Archive, ...], tmp_path: Path
) -> None:
    archives.check(known, folder)
    (tmp_path / "google.tgz").write_bytes(b"other")
    result = CliRunner().invoke(command.main, [f"--dest={tmp_path}/x.zip", f"--archives={tmp_path}"])
    assert result.exit_code == 1
    for archive in archives.ARCHIVES:
        assert f"{archive.file} is missing (npm pack {archive.package})" in result.stderr
    assert result.stderr.startswith(f"Error: --archives: {tmp_path}: ")
    assert not (tmp_path / "x.zip").exists()
    with pytest.raises(UserError, match=r"google\.tgz: expected sha256 .*, found .*; twitter\.tgz is missing"):
        archives.check(known[:2], tmp_path)
    with pytest.raises(UserError, match=r"google\.tgz: cannot be read"):
        archives.images(known[0], tmp_path)
    pack(tmp_path / "twitter.tgz", {})
    with pytest.raises(UserError, match=r"twitter\.tgz: expected images named .*, found none"):
        archives.images(known[1], tmp_path)
    pack(tmp_path / "twitter.tgz", {"package/img/twitter/64/1f600.png": b"no image"})
    with pytest.raises(UserError, match=r"twitter\.tgz: 1f600: cannot be read"):
        collection.collect(known[1:2], tmp_path, (255, 255, 255))


def test_npm_fetches_the_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def run(words: list[str], **options: Any) -> subprocess.CompletedProcess:
        calls.append((words, options["cwd"]))
        return subprocess.CompletedProcess(words, int("twitter" in words[-1]), "", "noise\nno such package\n")

    monkeypatch.setattr(archives.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(archives.subprocess, "run", run)
    with pytest.raises(UserError, match=r"archives: npm pack emoji-datasource-twitter@16\.0\.0 failed: no such "
                                        r"package; .* name their folder: emoji-datasource-google-16\.0\.0\.tgz, "):
        archives.fetch(archives.ARCHIVES, tmp_path)
    assert calls[0] == (["/bin/npm", "pack", "--silent", "emoji-datasource-google@16.0.0"], tmp_path)
    assert len(calls) == 2
    monkeypatch.setattr(archives.shutil, "which", lambda name: None)
    result = CliRunner().invoke(command.main, [f"--dest={tmp_path}/x.zip"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: --archives: expected the command npm, found none; install it, or make")


def test_the_committed_list() -> None:
    """No picture is on both sides, by a reading of the names that shares no code with the split."""
    lines = [line.split("\t") for line in collection.LIST.read_text().splitlines()]
    assert lines[0] == ["part", "emoji", "google", "twitter", "fluent"]
    digests = [digest for line in lines[1:] for digest in line[2:] if digest != "-"]
    assert len(digests) == 10909
    assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in digests)
    assert len({line[1] for line in lines[1:]}) == len(lines) - 1
    sides: dict[str, set[str]] = {}
    for part, name, *_ in lines[1:]:
        plain = re.sub("-(1f3fb|1f3fc|1f3fd|1f3fe|1f3ff|fe0f|200d-2640|200d-2642|200d-27a1)", "", name)
        plain = re.sub("1f468|1f469", "1f9d1", plain.removeprefix("00"))
        sides.setdefault(plain, set()).add(part)
    assert len(sides) > 1600
    assert [name for name, parts in sides.items() if len(parts) > 1] == []
    assert {*map(str, sides["1f9d1-200d-1f33e"])} <= {"train", "test"}
    share = sum(line[0] == "test" for line in lines[1:]) / (len(lines) - 1)
    assert 0.15 < share < 0.25


class Shop:
    """Stands in for the folder that work is done in: notes the commands and answers with given distances."""

    def __init__(self, out: Path, distances: list[float]) -> None:
        self.out, self.distances = out, distances
        self.detectors, self.num_gen, self.settings = [Path("a.pt"), Path("b.pt")], 10, {}
        self.results = out / "results.jsonl"
        self.commands: list[tuple[str, ...]] = []

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.results.read_text().splitlines()] if self.results.exists() else []

    def command(self, *words: str) -> str:
        self.commands.append(words)
        given = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
        if words[0] == "train.py":
            run = Path(given["outdir"], "00000-x") if "outdir" in given else Path(given["resume"])
            run.mkdir(parents=True, exist_ok=True)
            (run / "training_options.json").write_text('{"provenance": {"torch": "9", "command": "x"}}')
            (run / f"network-snapshot-{int(given['kimg']):06d}.pkl").touch()
            with open(run / "stats.jsonl", "a") as file:
                print(json.dumps({"Progress/kimg": {"mean": int(given["kimg"])},
                                  "Timing/sec_per_kimg": {"mean": 5}}), file=file)
            return ""
        if words[0] == "-m":
            return json.dumps({"intra_fd": 7, "per_class": {"intra_fd": [6, 8]}})
        name = f"fd@{Path(given['detector']).stem}"
        distance = self.distances.pop(0) if name == "fd@a" else 99
        return f'noise\n{{"results": {{"{name}": {distance}}}, "protocol": {{"num_gen": 10}}}}\n'


@pytest.mark.parametrize(("distances", "stages"), [([9, 5, 4.95], 3), ([9, 5, 3, 2], 4), ([9, 9.5], 2)])
def test_teacher_is_trained_until_it_gains_little(tmp_path: Path, distances: list[float], stages: int) -> None:
    shop: Any = Shop(tmp_path, distances.copy())
    bench = emoji64_teacher.Bench(shop, Path("d.zip"), Path("t.zip"), snap=3, gpus=1)
    bench.run(emoji64_teacher.jobs(labels=False)[0])
    trained = [words for words in shop.commands if words[0] == "train.py"]
    assert [word for words in trained for word in words if word.startswith("--kimg")] == [
        f"--kimg={100 * stage}" for stage in range(1, stages + 1)]
    assert {"--mirror=true", "--aug=ada", "--cmax=128", "--cond=false", "--data=d.zip"} <= {*trained[0]}
    assert all({"--snap=3", "--gpus=1"} <= {*words} for words in trained)
    assert trained[1][1] == f"--resume={tmp_path / 'runs/teacher/00000-x'}"
    rows = shop.rows()
    assert [(row["detector"], row["kimg"]) for row in rows] == [
        *(("a", 100 * stage) for stage in range(1, stages + 1)), ("b", 100 * stages)]
    assert rows[0]["training"] == {"Progress/kimg": 100, "Timing/sec_per_kimg": 5}
    assert rows[0]["provenance"] == {"torch": "9"}
    shop.commands.clear()
    bench.run(emoji64_teacher.jobs(labels=False)[0])
    assert shop.commands == [], "what is done is not done again"
    shown = CliRunner().invoke(emoji64_teacher.main, [f"--out={tmp_path}", "--list"]).output.splitlines()
    assert shown[0] == f"teacher          {100 * stages} of at most 400 kimg    5.0 s/kimg"
    assert shown[1] == f"    100 kimg  fd@a {distances[0]:.2f}"


def test_teacher_starts_from_a_network_that_has_seen_images(tmp_path: Path) -> None:
    shop: Any = Shop(tmp_path, [9, 5, 3])
    job = emoji64_teacher.jobs(labels=False, start_kimg=130)[0]
    bench = emoji64_teacher.Bench(shop, Path("d.zip"), Path("t.zip"), snap=3, gpus=1)
    assert bench.run(job, Path("kept.safetensors")) == tmp_path / "runs/teacher/00000-x/network-snapshot-000270.pkl"
    trained = [words for words in shop.commands if words[0] == "train.py"]
    assert [[word for word in words if word.startswith(("--kimg", "--resume"))] for words in trained] == [
        ["--kimg=70", "--resume=kept.safetensors"],
        [f"--resume={tmp_path}/runs/teacher/00000-x", "--kimg=170"],
        [f"--resume={tmp_path}/runs/teacher/00000-x", "--kimg=270"]]
    assert [row["kimg"] for row in shop.rows()] == [200, 300, 400, 400]
    assert [row["training"]["Progress/kimg"] for row in shop.rows()] == [70, 170, 270, 270]
    (tmp_path / "settings.json").write_text('{"start_kimg": 130}')
    shown = CliRunner().invoke(emoji64_teacher.main, [f"--out={tmp_path}", "--list"]).output
    assert shown.startswith("teacher          400 of at most 400 kimg")
    result = CliRunner().invoke(emoji64_teacher.main, [f"--out={tmp_path}", "--start-kimg=130"])
    assert result.exit_code == 1
    assert result.stderr == "Error: --start-kimg: name the network that has seen them with --start\n"


def test_teacher_with_labels_has_distances_within_classes(tmp_path: Path) -> None:
    shop: Any = Shop(tmp_path, [4, 4])
    job = emoji64_teacher.jobs(labels=True)[1]
    emoji64_teacher.Bench(shop, Path("d.zip"), Path("t.zip"), snap=3, gpus=1).run(job, Path("first.pkl"))
    assert {"--cond=true", "--resume=first.pkl", "--kimg=50"} <= {*shop.commands[0]}
    assert [row["kimg"] for row in shop.rows()] == [50, 50]
    assert shop.rows()[0]["results"] == {"fd@a": 4, "intra_fd": 7, "intra_fd_by_class": [6, 8]}


def test_arguments_of_the_teacher_are_those_of_train(tmp_path: Path) -> None:
    data = zip_folder(write_images(tmp_path / "data", random_images(6, side=64, num_channels=3), [0, 1, 2] * 2))
    for job in emoji64_teacher.jobs(labels=True):
        args = [*job.arguments, f"--data={data}", f"--outdir={tmp_path}", "--dry-run", "--no-estimate"]
        result = CliRunner().invoke(train.main, args)
        assert result.exit_code == 0, result.output
        assert '"channel_max": 128' in result.output


def test_kept_teacher_has_the_architecture_that_is_trained() -> None:
    kept = Path(emoji64_teacher.__file__).parent / "emoji64/teacher.safetensors"
    with open(kept, "rb") as file:
        networks = pickles.read_networks(file, str(kept))
    with torch.inference_mode():
        images = networks["G_ema"](torch.randn([2, 128]), None, noise_mode="const")
        assert images.shape == (2, 3, 64, 64)
        assert networks["D"](images, None).isfinite().all()
    widths = [len(networks["G_ema"].state_dict()[f"synthesis.b{side}.conv1.bias"]) for side in (4, 8, 16, 32, 64)]
    assert widths == [min(2048 // side, 128) for side in (4, 8, 16, 32, 64)]


def test_missing_files_of_the_teacher_are_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(emoji64_teacher.main, [f"--out={tmp_path}", f"--data={tmp_path}/none.zip"])
    assert result.exit_code == 1
    assert result.stderr == f"Error: --data: {tmp_path}/none.zip: no such file\n"
