"""dataset_tool.py with folders and zips: every option and error; interruption leaves nothing; validate."""
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import dataset_tool
from tests.cli.dataset_tool_runs import assert_refused, convert, converted, file_names, label_file, pixels_of, run
from tests.helpers import damage_zip_entry, image_bytes, random_images, write_images, zip_folder
from training.data.dataset import ImageFolderDataset

ROOT = Path(dataset_tool.__file__).parent


@pytest.fixture(params=["out", "out.zip"])
def dest(request, tmp_path) -> Path:
    return tmp_path / request.param


# Folder and zip.


def test_folder_in_folder_and_zip_out(tmp_path, dest):
    names = ["b/1.png", "a/x.png", "a-b/x.bmp"]
    images = dict(zip(names, random_images(3).values(), strict=True))
    dataset = converted(write_images(tmp_path / "in", images, [5, 3, 4]), dest)
    by_parts = ["a/x.png", "a-b/x.bmp", "b/1.png"]
    np.testing.assert_array_equal(pixels_of(dataset), np.stack([images[name] for name in by_parts]))
    assert [dataset.get_details(i).raw_label for i in range(3)] == [3, 4, 5]
    assert file_names(dest) == [f"00000/img0000000{i}.png" for i in range(3)] + ["dataset.json"]


def test_zip_in_and_sorted_by_string(tmp_path, dest):
    names = ["b/1.png", "a/x.png", "a-b/x.png"]
    images = dict(zip(names, random_images(3, num_channels=1).values(), strict=True))
    dataset = converted(zip_folder(write_images(tmp_path / "in", images, [[0, 1.5], [1, 0], [2, 0]])), dest)
    np.testing.assert_array_equal(pixels_of(dataset), np.stack([images[name] for name in sorted(names)]))
    assert [dataset.get_label(i).tolist() for i in range(3)] == [[2, 0], [1, 0], [0, 1.5]]


def test_zip_is_stored_raw_and_reproducible(tmp_path):
    source = write_images(tmp_path / "in", random_images(2))
    convert(source, tmp_path / "a.zip")
    convert(source, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.getinfo("00000/img00000000.png").file_size > 8 * 8 * 3


def test_an_older_zip_is_replaced_only_by_a_whole_one(tmp_path):
    dest = tmp_path / "d.zip"
    good = write_images(tmp_path / "good", random_images(2))
    assert len(converted(good, dest)) == 2
    before = dest.read_bytes()
    assert convert(write_images(tmp_path / "bad", {"0.png": b"junk"}), dest).exit_code == 1
    assert dest.read_bytes() == before
    assert len(converted(write_images(tmp_path / "more", random_images(3)), dest)) == 3


def test_empty_folder_and_missing_parents_as_destination(tmp_path):
    source = write_images(tmp_path / "in", random_images(1))
    (tmp_path / "empty").mkdir()
    assert len(converted(source, tmp_path / "empty")) == 1
    assert len(converted(source, tmp_path / "new" / "deep" / "d.zip")) == 1


def test_failure_gives_an_empty_folder_back(tmp_path):
    (tmp_path / "empty").mkdir()
    assert convert(write_images(tmp_path / "in", {"0.png": b"junk"}), tmp_path / "empty").exit_code == 1
    assert list((tmp_path / "empty").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "in"]


def test_sub_folders_as_labels(tmp_path, dest):
    images = dict(zip(["dog/0.png", "cat/b/0.png", "cat/1.png"], random_images(3).values(), strict=True))
    dataset = converted(write_images(tmp_path / "in", images), dest, "--subfolders-as-labels")
    assert [dataset.get_label(i).tolist() for i in range(3)] == [[1, 0], [1, 0], [0, 1]]


def test_sub_folders_are_recorded_and_win_over_a_label_file(tmp_path):
    images = dict(zip(["dog/0.png", "cat/0.png"], random_images(2).values(), strict=True))
    convert(zip_folder(write_images(tmp_path / "in", images, [7, 7])), tmp_path / "out.zip", "--subfolders-as-labels")
    content = label_file(tmp_path / "out.zip")
    assert content["labels"] == [["00000/img00000000.png", 0], ["00000/img00000001.png", 1]]
    assert content["dataset_tool"] == {"source": "in.zip", "classes": ["cat", "dog"]}


def test_no_labels_and_some_labels(tmp_path):
    source = write_images(tmp_path / "in", random_images(3))
    result = convert(source, tmp_path / "a.zip")
    assert "label," not in result.output
    assert label_file(tmp_path / "a.zip")["labels"] is None
    (source / "dataset.json").write_text('{"labels": [["0.png", 1], ["2.png", 0]]}')
    result = convert(source, tmp_path / "b.zip")
    assert "without a label, so dataset.json holds no labels at all: 1.png" in result.output
    assert label_file(tmp_path / "b.zip")["labels"] is None


# Which images.


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], [0, 1, 2, 3, 4, 5]),
        (["--max-images=2"], [0, 1]),
        (["--max-images=20"], [0, 1, 2, 3, 4, 5]),
        (["--range=2:4"], [2, 3]),
        (["--range=:3"], [0, 1, 2]),
        (["--range=4:"], [4, 5]),
        (["--range=1:5", "--max-images=2"], [1, 2]),
    ],
)
def test_range_and_max_images(tmp_path, args, expected):
    images = random_images(6)
    dest = tmp_path / "out.zip"
    dataset = converted(write_images(tmp_path / "in", images, list(range(6))), dest, *args)
    np.testing.assert_array_equal(pixels_of(dataset), np.stack([images[f"{i}.png"] for i in expected]))
    assert file_names(dest)[:-1] == [f"00000/img{i:08d}.png" for i in expected]
    assert [dataset.get_details(i).raw_label for i in range(len(dataset))] == expected


@pytest.mark.parametrize("text", ["0:7", "6:", "3:3", "4:2"])
def test_range_outside_of_the_source(tmp_path, text):
    result = convert(write_images(tmp_path / "in", random_images(6)), tmp_path / "out.zip", f"--range={text}")
    assert_refused(result, tmp_path, "--range: ", "is outside of the 6 images of")


# Transforms.


def test_resize_as_pil_does(tmp_path):
    images = random_images(1, side=32)
    image = PIL.Image.fromarray(images["0.png"])
    source = write_images(tmp_path / "in", images)
    for name, args, resample in [
        ("a", ["--resolution=8x8"], PIL.Image.Resampling.LANCZOS),
        ("b", ["--width=8", "--height=8", "--resize-filter=box"], PIL.Image.Resampling.BOX),
        ("c", ["--resolution=8,8", "--resize-filter=lanczos"], PIL.Image.Resampling.LANCZOS),
    ]:
        dataset = converted(source, tmp_path / f"{name}.zip", *args)
        np.testing.assert_array_equal(pixels_of(dataset)[0], np.asarray(image.resize((8, 8), resample)))
    assert label_file(tmp_path / "b.zip")["dataset_tool"]["resize_filter"] == "box"
    assert "resize_filter" in label_file(tmp_path / "a.zip")["dataset_tool"]


def test_a_side_that_is_not_given_stays(tmp_path):
    source = write_images(tmp_path / "in", {"0.png": np.zeros([8, 20, 1], np.uint8)})
    assert converted(source, tmp_path / "out.zip", "--width=8").image_shape == [1, 8, 8]


@pytest.mark.parametrize("num_channels", [1, 3])
def test_center_crop(tmp_path, num_channels):
    image = np.random.RandomState(0).randint(0, 256, (8, 13, num_channels), dtype=np.uint8)
    source = write_images(tmp_path / "in", {"0.png": image, "1.png": image.transpose(1, 0, 2)})
    dataset = converted(source, tmp_path / "out.zip", "--transform=center-crop", "--resolution=8x8")
    np.testing.assert_array_equal(pixels_of(dataset)[0], image[:, 2:10])
    np.testing.assert_array_equal(pixels_of(dataset)[1], image.transpose(1, 0, 2)[2:10])


def test_center_crop_wide(tmp_path):
    image = np.random.RandomState(0).randint(1, 256, (8, 8, 3), dtype=np.uint8)
    source = write_images(tmp_path / "in", {"0.png": image, "1.png": image[:, :7], "2.png": image[:2], "3.png": image})
    args = ["--transform=center-crop-wide", "--resolution=8x4"]
    result = convert(source, tmp_path / "out.zip", *args)
    assert "left out, smaller than the crop: 2 images:\n  1.png\n  2.png\n" in result.output
    assert file_names(tmp_path / "out.zip") == ["00000/img00000000.png", "00000/img00000003.png", "dataset.json"]
    dataset = ImageFolderDataset(str(tmp_path / "out.zip"))
    # Eight rows of eight columns, squeezed to four.
    squeezed = np.asarray(PIL.Image.fromarray(image).resize((8, 4), PIL.Image.Resampling.LANCZOS))
    expected = np.zeros([8, 8, 3], np.uint8)
    expected[2:6] = squeezed
    np.testing.assert_array_equal(pixels_of(dataset)[1], expected)


def test_center_crop_wide_takes_the_central_rows(tmp_path):
    image = np.random.RandomState(0).randint(1, 256, (8, 16, 1), dtype=np.uint8)
    source = write_images(tmp_path / "in", {"0.png": image})
    args = ["--transform=center-crop-wide", "--resolution=8x4"]
    dataset = converted(source, tmp_path / "out.zip", *args)
    rows = PIL.Image.fromarray(image[2:6, :, 0])  # round(8 * 8 / 16) = 4 rows
    expected = np.zeros([8, 8, 1], np.uint8)
    expected[2:6, :, 0] = np.asarray(rows.resize((8, 4), PIL.Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(pixels_of(dataset)[0], expected)


def test_force_channels(tmp_path):
    rgba = np.random.RandomState(0).randint(0, 256, (8, 8, 4), dtype=np.uint8)
    grey = rgba[:, :, :1]
    source = write_images(tmp_path / "in", {"0.png": rgba, "1.png": grey})
    rgb = pixels_of(converted(source, tmp_path / "rgb.zip", "--force-channels=3"))
    opacity = rgba[:, :, 3:] / 255
    on_white = rgba[:, :, :3] * opacity + 255 * (1 - opacity)
    assert np.abs(rgb[0] - on_white).max() <= 1
    np.testing.assert_array_equal(rgb[1], np.repeat(grey, 3, axis=2))
    single = pixels_of(converted(source, tmp_path / "grey.zip", "--force-channels=1"))
    np.testing.assert_array_equal(single[0, :, :, 0], np.asarray(PIL.Image.fromarray(rgb[0]).convert("L")))
    np.testing.assert_array_equal(single[1], grey)


def test_force_channels_does_not_clip_deep_images(tmp_path):
    source = write_images(tmp_path / "in", {"0.png": image_bytes(np.full([8, 8], 3000, np.uint16))})
    assert (pixels_of(converted(source, tmp_path / "out.zip", "--force-channels=1")) == 3000 // 256).all()
    result = convert(source, tmp_path / "again.zip")
    assert "of 16 bits per channel, the upper 8 taken: 1 images\n" in result.stderr


# Bad images.

BAD = {
    "bad0.png": b"junk",
    "bad1.png": image_bytes(np.zeros([8, 8, 4], np.uint8)),
    "bad2.png": image_bytes(np.zeros([8, 9, 3], np.uint8)),
    "bad3.png": image_bytes(np.zeros([6, 6, 3], np.uint8)),
    "bad4.png": image_bytes(np.zeros([4, 4, 3], np.uint8)),
    "bad5.png": image_bytes(np.zeros([8, 8, 1], np.uint8)),
}
REASONS = {
    "bad0.png": "bad0.png: cannot be read: not an image, or damaged at its start",
    "bad1.png": "bad1.png (RGBA 8x8): has an alpha channel, expected greyscale (L) or RGB",
    "bad2.png": "bad2.png (RGB 9x8): is not square",
    "bad3.png": "bad3.png (RGB 6x6): side is not a power of two",
    "bad4.png": "bad4.png (RGB 4x4): side is below 8, the smallest that the networks take",
    "bad5.png": "bad5.png (L 8x8): expected RGB 8x8 as most images are",
}


@pytest.mark.parametrize("name", list(BAD))
def test_one_bad_image_is_named_in_one_line(tmp_path, dest, name):
    result = convert(write_images(tmp_path / "in", random_images(3) | {name: BAD[name]}), dest)
    assert_refused(result, tmp_path, f"Error: --source: {REASONS[name]}. Nothing was written. ", "--skip-bad")
    assert result.output.count("\n") == 1


def test_all_bad_images_are_named(tmp_path, dest):
    result = convert(write_images(tmp_path / "in", random_images(3) | BAD), dest)
    assert_refused(result, tmp_path, "Error: --source: 6 images:\n  " + "\n  ".join(REASONS.values()) + "\n")


def test_a_long_list_is_cut(tmp_path):
    images = random_images(1) | {f"bad{i:02d}.png": b"junk" for i in range(23)}
    result = convert(write_images(tmp_path / "in", images), tmp_path / "out")
    assert_refused(result, tmp_path, "--source: 23 images:", "  bad19.png: ", "  ... and 3 more\n")
    assert "bad20.png" not in result.output


def test_stops_when_the_first_twenty_are_all_bad(tmp_path):
    images = {f"bad{i:02d}.png": BAD["bad2.png"] for i in range(25)}
    result = convert(write_images(tmp_path / "in", images), tmp_path / "out")
    assert_refused(result, tmp_path, "--source: 20 images:", "bad19.png")


def test_skip_bad_leaves_them_out_and_says_so(tmp_path, dest):
    images = random_images(3, side=8)
    mixed = {"0.png": images["0.png"], **BAD, "c.png": images["1.png"]}
    result = convert(write_images(tmp_path / "in", mixed, list(range(8))), dest, "--skip-bad=all")
    assert result.exit_code == 0
    assert "left out, bad: 6 images:\n  " + "\n  ".join(REASONS.values()) + "\n" in result.output
    dataset = ImageFolderDataset(str(dest), use_labels=True)
    np.testing.assert_array_equal(pixels_of(dataset), np.stack([images["0.png"], images["1.png"]]))
    assert [dataset.get_details(i).raw_label for i in range(2)] == [0, 7]
    assert file_names(dest) == ["00000/img00000000.png", "00000/img00000007.png", "dataset.json"]


def test_nothing_left(tmp_path, dest):
    source = write_images(tmp_path / "in", {"0.png": b"junk", "1.png": np.zeros([2, 2, 3], np.uint8)})
    args = ["--skip-bad", "--transform=center-crop-wide", "--resolution=8x4"]
    assert_refused(convert(source, dest, *args), tmp_path, "every image was left out, nothing was written: ",
                   "0.png: cannot be read", "; 1.png")


def test_damaged_entry_of_a_source_zip(tmp_path):
    path = zip_folder(write_images(tmp_path / "in", random_images(2)))
    damage_zip_entry(path, "1.png")
    assert_refused(convert(path, tmp_path / "out"), tmp_path, "1.png: cannot be read from the zip: Bad CRC-32")


# Bad paths and options.


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing", "missing: no such file or folder"),
        ("in/0.png", "0.png: expected a folder, a .zip, cifar-10-python.tar.gz, a file named *-images-idx3-ubyte.gz"),
        ("empty", "empty: no image files found"),
        ("broken.zip", "broken.zip: cannot be read as a zip"),
    ],
)
def test_bad_source(tmp_path, source, message):
    write_images(tmp_path / "in", random_images(1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.zip").write_bytes(b"junk")
    assert_refused(convert(tmp_path / source, tmp_path / "out"), tmp_path, message)


def test_bad_label_file_of_a_source(tmp_path):
    source = write_images(tmp_path / "in", random_images(1))
    (source / "dataset.json").write_text("{")
    assert_refused(convert(source, tmp_path / "out"), tmp_path, "in/dataset.json: is not valid JSON")


def test_sub_folders_as_labels_needs_sub_folders(tmp_path):
    source = write_images(tmp_path / "in", {"a/0.png": np.zeros([8, 8, 3], np.uint8), **random_images(1)})
    result = convert(source, tmp_path / "out", "--subfolders-as-labels")
    assert_refused(result, tmp_path, f"--subfolders-as-labels: {source}/0.png is in no sub-folder")


def test_bad_destination(tmp_path):
    source = write_images(tmp_path / "in", random_images(1))
    full = write_images(tmp_path / "full", random_images(1))
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dir.zip").mkdir()
    for dest, message in [
        ("", "--dest: expected a folder or a name ending in .zip, found an empty name"),
        (tmp_path / "d.tar", "unknown kind of archive, expected a folder or a name ending in .zip"),
        (tmp_path / "file", "file is a file, expected a folder or a name ending in .zip"),
        (full, f"--dest: folder {full} is not empty"),
        (tmp_path / "dir.zip", "dir.zip is a folder, expected a zip file or a name that is free"),
        (tmp_path / "file" / "d.zip", "--dest: cannot write to"),
    ]:
        assert_refused(convert(source, dest), tmp_path, message)
    assert file_names(full) == ["0.png"]


def test_a_data_set_does_not_replace_its_source(tmp_path):
    source = tmp_path / "data.zip"
    assert convert(write_images(tmp_path / "in", random_images(2)), source).exit_code == 0
    before = source.read_bytes()
    (tmp_path / "link.zip").symlink_to(source)
    for dest in (source, tmp_path / "link.zip"):
        assert_refused(convert(source, dest), tmp_path, f"--dest: {dest} is the source, too; name another")
    assert source.read_bytes() == before


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_destination_without_permission(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    result = convert(write_images(tmp_path / "in", random_images(1)), tmp_path / "closed" / "d.zip")
    assert_refused(result, tmp_path, "--dest: cannot write to", "Permission denied")


def test_full_disk(tmp_path, dest, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", no_space)
    monkeypatch.setattr(Path, "write_bytes", no_space)
    source = tmp_path / "in"
    source.mkdir()
    PIL.Image.new("L", (8, 8)).save(source / "0.png")
    result = convert(source, dest)
    assert str(dest) in result.output
    assert_refused(result, tmp_path, "No space left on device")


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--transform=center-crop"], 1, "--transform: center-crop needs the output size, pass --resolution=WxH"),
        (["--transform=center-crop-wide", "--width=8"], 1, "--transform: center-crop-wide needs the output size"),
        (["--transform=center-crop-wide", "--resolution=4x8"], 1, "makes wide images, found 4x8; use center-crop"),
        (["--resolution=8x8", "--width=8"], 2, "--resolution: pass it or --width and --height, not both"),
        (["--resolution=8"], 2, "expected WxH, for example 256x256, found '8'"),
        (["--resolution=0x8"], 2, "expected WxH"),
        (["--range=5"], 2, "expected FIRST:END, for example 0:8000, found '5'"),
        (["--range=-1:5"], 2, "expected FIRST:END"),
        (["--max-images=0"], 2, "Invalid value for '--max-images'"),
        (["--width=0"], 2, "Invalid value for '--width'"),
        (["--resize-filter=cubic"], 2, "Invalid value for '--resize-filter'"),
        (["--transform=pad"], 2, "Invalid value for '--transform'"),
        (["--force-channels=4"], 2, "Invalid value for '--force-channels'"),
    ],
)
def test_bad_options(tmp_path, args, status, message):
    result = convert(write_images(tmp_path / "in", random_images(1)), tmp_path / "out", *args)
    assert_refused(result, tmp_path, message, status=status)


def test_required_options():
    assert "Missing option '--source'" in run().output
    assert "Missing option '--dest'" in run("--source=x").output
    assert "Missing option '--data'" in run("validate").output


# Interruption, help, validate.


def has_begun(folder: Path) -> bool:
    return any(path.name != "in" and (path.stat().st_size if path.is_file() else list(path.iterdir()))
               for path in folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_conversion_leaves_nothing(tmp_path, dest, number):
    source = tmp_path / "in"
    source.mkdir()
    first = source / "00000.png"
    first.write_bytes(image_bytes(np.zeros([256, 256, 3], np.uint8)))
    for i in range(1, 3000):
        os.link(first, source / f"{i:05d}.png")
    command = [sys.executable, ROOT / "dataset_tool.py", f"--source={source}", f"--dest={dest}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not has_begun(tmp_path) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        began = [path.name for path in tmp_path.iterdir() if path != source]
        process.send_signal(number)
        process.communicate()
    assert began != [dest.name]
    assert len(began) == 1  # it was in the midst of it, under a temporary name
    assert process.returncode not in (0, None)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_sigterm_is_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    convert(write_images(tmp_path / "in", random_images(1)), tmp_path / "out")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("args", [["--help"], ["convert", "--help"], ["validate", "--help"]])
def test_help_needs_no_torch(args):
    code = f"import sys; sys.argv[1:] = {args}; import runpy\n" \
           f"try: runpy.run_path({str(ROOT / 'dataset_tool.py')!r}, run_name='__main__')\n" \
           "finally: assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Usage: ")


def test_converting_and_checking_need_no_torch(tmp_path):
    source = write_images(tmp_path / "in", random_images(1))
    code = "import sys; sys.modules['torch'] = None; import dataset_tool; dataset_tool.main()"
    for args in (["--source", source, "--dest", tmp_path / "d.zip"], ["validate", "--data", tmp_path / "d.zip"]):
        command = [sys.executable, "-c", code, *args]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert result.returncode == 0, result.stderr
        assert "1 images, 8x8, 3 channel(s)" in result.stdout


def test_help_of_convert_tells_the_options():
    text = run("--help").output
    for option in ("--source", "--dest", "--max-images", "--range", "--transform", "--resolution", "--width",
                   "--height", "--resize-filter", "--force-channels", "--subfolders-as-labels", "--skip-bad"):
        assert option in text
    assert "validate" in text


def test_validate_a_good_data_set(tmp_path):
    folder = write_images(tmp_path / "d", random_images(3), [0, 1, 4])
    result = run("validate", f"--data={folder}", "--resolution=8")
    assert result.exit_code == 0
    assert result.stdout == f"{folder}: 3 images, 8x8, 3 channel(s), labels of shape [5]: fine\n"
    assert result.stderr == "Note: 2 classes have no image: 2, 3\n"
    (folder / "dataset.json").unlink()
    assert "no labels: fine" in run("validate", f"--data={folder}").output


def test_validate_lists_every_bad_file(tmp_path):
    folder = write_images(tmp_path / "d", random_images(3) | BAD, list(range(-1, 8)))
    result = run("validate", f"--data={folder}")
    assert result.exit_code == 1
    rows = [line.split("\t") for line in result.output.splitlines() if "\t" in line]
    assert [row[0] for row in rows] == list(BAD)
    assert rows[1] == ["bad1.png", "RGBA", "8x8", "has an alpha channel, expected greyscale (L) or RGB"]
    assert rows[4] == ["bad4.png", "RGB", "4x4", "side is below 8, the smallest that the networks take"]
    assert f"Error: --data: {folder}: 6 of 9 images cannot be used; {folder}/dataset.json: label of 0.png is -1" \
        in result.output


def test_validate_a_missing_data_set(tmp_path):
    result = run("validate", f"--data={tmp_path / 'missing'}")
    assert_refused(result, tmp_path, "missing: no such folder or zip")
