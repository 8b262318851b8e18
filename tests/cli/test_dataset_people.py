"""dataset_tool.py with the folders and photographs that people have: orientation, transparency, odd files, labels."""
import io
import json
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from tests.cli.dataset_tool_runs import assert_refused, convert, converted, file_names, label_file, pixels_of, run
from tests.helpers import image_bytes, random_images, write_images, zip_folder
from training.data import tfrecords
from training.data.files import BadFile
from training.data.pixels import read_picture

RED, BLUE = (254, 0, 0), (0, 0, 254)


def two_halves() -> np.ndarray:
    """Red above blue, uint8 [16, 16, 3]."""
    pixels = np.empty([16, 16, 3], np.uint8)
    pixels[:8], pixels[8:] = RED, BLUE
    return pixels


def with_orientation(orientation: int, image_format: str) -> bytes:
    """Two halves, stored so that a viewer that heeds the EXIF tag shows red above blue."""
    stored = PIL.Image.fromarray(two_halves())
    undo = {3: PIL.Image.Transpose.ROTATE_180, 6: PIL.Image.Transpose.ROTATE_90, 8: PIL.Image.Transpose.ROTATE_270}
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.transpose(undo[orientation]).save(buffer, format=image_format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("image_format", ["jpeg", "png", "tiff", "webp"])
def test_photographs_are_turned_upright(orientation: int, image_format: str) -> None:
    picture = read_picture(with_orientation(orientation, image_format))
    assert picture.is_turned
    assert np.abs(picture.pixels.astype(int) - two_halves()).mean() < 8  # lossy formats


def test_turned_images_are_counted_and_the_loader_agrees(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"a.png": with_orientation(6, "png"), "b.png": two_halves()})
    result = convert(source, tmp_path / "out.zip")
    assert "turned upright as their EXIF data say: 1 images\n" in result.stderr
    for path in (source, tmp_path / "out.zip"):
        dataset = converted(source, tmp_path / "again.zip") if path == source else None
        pixels = pixels_of(dataset or converted(path, tmp_path / "third.zip"))
        np.testing.assert_array_equal(pixels, np.stack([two_halves()] * 2))


def test_damaged_exif_data_count_as_none() -> None:
    buffer = io.BytesIO()
    PIL.Image.fromarray(two_halves()).save(buffer, format="png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, about the damage
        picture = read_picture(buffer.getvalue())
    np.testing.assert_array_equal(picture.pixels, two_halves())


# Transparency, palettes, depth.


def transparent(mode: str) -> bytes:
    """Magenta under full transparency on the left, opaque green on the right."""
    rgba = np.empty([16, 16, 4], np.uint8)
    rgba[:, :8], rgba[:, 8:] = (255, 0, 255, 0), (0, 128, 0, 255)
    image = PIL.Image.fromarray(rgba)
    buffer = io.BytesIO()
    if mode == "P":
        image = PIL.Image.fromarray(rgba[..., :3]).convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=4)
        image.save(buffer, format="png", transparency=image.getpixel((0, 0)))
    elif mode == "RGB":
        image.convert("RGB").save(buffer, format="png", transparency=(255, 0, 255))
    else:
        image.convert(mode).save(buffer, format="png")
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGBA", "P", "RGB", "LA"])
@pytest.mark.parametrize(("args", "background"), [(["--force-channels=3"], 255), (["--background=#102030"], None)])
def test_transparency_is_composed_on_the_background(tmp_path: Path, mode: str, args: list, background: int) -> None:
    source = write_images(tmp_path / "in", {"a.png": transparent(mode)})
    result = convert(source, tmp_path / "out.zip", *args)
    assert "with transparency, composed on the background: 1 images\n" in result.stderr
    pixels = pixels_of(converted(source, tmp_path / "again.zip", *args))[0]
    expected = (background,) * 3 if background is not None else (16, 32, 48)
    assert pixels.shape == (16, 16, 3)
    assert pixels[:, :8].reshape(-1, 3).tolist() == [list(expected)] * 128
    assert pixels[0, 12, 1] == (75 if mode == "LA" else 128)  # of green, the luma


def test_transparency_needs_a_decision(tmp_path: Path) -> None:
    for mode, reason in [("RGBA", "has an alpha channel"), ("RGB", "has a transparent colour"),
                         ("P", "has a transparent colour")]:
        source = write_images(tmp_path / mode, {"a.png": transparent(mode)})
        assert_refused(convert(source, tmp_path / "out"), tmp_path, f"16x16): {reason}, expected greyscale (L) or RGB")


def test_bad_background(tmp_path: Path) -> None:
    result = convert(tmp_path, tmp_path / "out", "--background=nocolour")
    assert_refused(result, tmp_path, "expected a colour, for example white or #80a0ff, found 'nocolour'", status=2)


def test_palettes_and_bitmaps_are_exact(tmp_path: Path) -> None:
    palette = PIL.Image.fromarray(two_halves()).convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=2)
    np.testing.assert_array_equal(read_picture(image_bytes(palette)).pixels, np.asarray(palette.convert("RGB")))
    bitmap = np.eye(16, dtype=np.uint8)[..., None] * 255
    stored = image_bytes(PIL.Image.fromarray(bitmap[..., 0]).convert("1"))
    np.testing.assert_array_equal(read_picture(stored).pixels, bitmap)


def test_cmyk_and_deep_images() -> None:
    cmyk = image_bytes(PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)), ".tif")
    assert read_picture(cmyk, channels=3).pixels[0, 0].tolist() == [255, 0, 0]
    deeper = image_bytes(PIL.Image.fromarray(np.full([8, 8], 0.5, np.float32)), ".tif")
    for channels in (None, 1, 3):
        with pytest.raises(BadFile, match="more than 16 bits per channel and no agreed scale to 8"):
            read_picture(deeper, channels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_of_16_bits_the_upper_8_are_taken(suffix: str) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    picture = read_picture(image_bytes(PIL.Image.fromarray(deep), suffix))
    assert picture.is_reduced
    np.testing.assert_array_equal(picture.pixels[:, :, 0], deep // 256)
    in_colour = read_picture(image_bytes(PIL.Image.fromarray(deep), suffix), channels=3)
    np.testing.assert_array_equal(in_colour.pixels[:, :, 2], deep // 256)


def test_16_bits_of_colour_are_read_as_those_of_grey() -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1040
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in deep)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + name + data
                                          + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts)
    np.testing.assert_array_equal(read_picture(png).pixels[:, :, 0], deep // 256)


def test_the_transparent_grey_of_16_bits() -> None:
    deep = np.full([8, 8], 30000, np.uint16)
    deep[:, 4:] = 0
    buffer = io.BytesIO()
    PIL.Image.fromarray(deep).save(buffer, "png", transparency=0)
    assert read_picture(buffer.getvalue(), channels=1).pixels[0, :, 0].tolist() == [30000 // 256] * 4 + [255] * 4


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [PIL.Image.fromarray(two_halves()), PIL.Image.fromarray(two_halves()[::-1])]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="gif", save_all=True, append_images=frames[1:])
    source = write_images(tmp_path / "in", {"a.gif": buffer.getvalue()})
    result = convert(source, tmp_path / "out.zip")
    assert "animated or of several pages, the first frame taken: 1 images\n" in result.stderr
    assert pixels_of(converted(source, tmp_path / "again.zip"))[0][0, 0].tolist() == list(RED)


# Files that are no images, or none that can be read.


@pytest.mark.parametrize(("content", "kind"), [
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/tmp/x) (w) file\n", "a PostScript file"),
    (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image or a video"),
    (b"\0\0\0\x18ftypavif\0\0\0\0", "an AVIF image"),
    (b"%PDF-1.4\n", "a PDF file"),
    (b"<html>not found</html>", "an SVG drawing or a web page"),
])  # fmt: skip
def test_other_formats_are_named_and_never_opened(content: bytes, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "preinit", lambda: None)
    with pytest.raises(BadFile, match=f"^is {kind}, which is not supported$"):
        read_picture(content, channels=3)


def test_unsupported_and_hidden_files_are_counted(tmp_path: Path) -> None:
    images = random_images(2, side=16)
    extra = {".hidden.png": b"", "._0.png": b"", "@eaDir/0.png/thumb.jpg": b"", "__MACOSX/._0.png": b"",
             "IMG_1.HEIC": b"", "b/IMG_2.nef": b"", "Thumbs.db": b"", "notes.txt": b""}  # fmt: skip
    source = write_images(tmp_path / "in", images | extra)
    for place in (source, zip_folder(source)):
        dest = tmp_path / f"{place.suffix[1:]}d.zip"
        result = convert(place, dest)
        assert result.exit_code == 0
        assert "left out, not supported: 2 images:\n  IMG_1.HEIC is a HEIC image\n  b/IMG_2.nef is a camera raw" \
            in result.stderr
        assert "left out, hidden files of a system or tool: 4 images:\n" in result.stderr
        assert file_names(dest)[:-1] == [f"00000/img0000000{i}.png" for i in range(2)]
    assert run("validate", f"--data={source}").exit_code == 0
    nothing = write_images(tmp_path / "raw", {"a.cr2": b"II*\0"})
    assert_refused(convert(nothing, tmp_path / "out"), tmp_path,
                   "no image files found; a.cr2 is a camera raw image, which is not supported")


def test_hidden_folders_are_no_classes(tmp_path: Path) -> None:
    names = ["pets/cat/0.png", "pets/dog/1.png", "__MACOSX/pets/cat/._0.png", "pets/.ipynb_checkpoints/0.png"]
    images = dict(zip(names, random_images(4).values(), strict=True))
    path = zip_folder(write_images(tmp_path / "in", images))
    result = convert(path, tmp_path / "out.zip", "--subfolders-as-labels")
    assert "classes: cat 1, dog 1\n" in result.stderr
    content = label_file(tmp_path / "out.zip")
    assert [label for _, label in content["labels"]] == [0, 1]
    assert content["dataset_tool"]["classes"] == ["cat", "dog"]


# Labels.


def labelled(tmp_path: Path, names: list[str], label_names: list[str], labels: list, where: str = ".") -> Path:
    folder = write_images(tmp_path / "in", dict(zip(names, random_images(len(names)).values(), strict=True)))
    pairs = [list(pair) for pair in zip(label_names, labels, strict=True)]
    (folder / where / "dataset.json").write_text(json.dumps({"labels": pairs}))
    return folder


def test_labels_that_match_nothing_stop_the_conversion(tmp_path: Path) -> None:
    source = labelled(tmp_path, ["0.png", "1.png"], ["data/0.png", "data/1.png"], [0, 1])
    message = "none of its 2 labels belongs to an image; it names for example data/0.png, the images are called for " \
              "example 0.png"
    assert_refused(convert(source, tmp_path / "out"), tmp_path, message)


@pytest.mark.parametrize(("label_names", "where"), [
    (["set\\0.png", "set\\1.png"], "."), (["./set/0.png", "./set/1.png"], "."), (["0.png", "1.png"], "set"),
])  # fmt: skip
def test_labels_are_found(tmp_path: Path, label_names: list[str], where: str) -> None:
    source = labelled(tmp_path, ["set/0.png", "set/1.png"], label_names, [3.0, 1], where)
    result = convert(source, tmp_path / "out.zip")
    assert "labels: 2 in the source, 2 stored\nclasses: 1 1, 3 1\nclasses without images: 0, 2\n" in result.stderr
    assert [label for _, label in label_file(tmp_path / "out.zip")["labels"]] == [3, 1]


def test_several_label_files(tmp_path: Path) -> None:
    source = labelled(tmp_path, ["a/0.png", "b/1.png"], ["0.png"] * 2, [0, 1], "a")
    (source / "b" / "dataset.json").write_text('{"labels": null}')
    assert_refused(convert(source, tmp_path / "out"), tmp_path, "found a/dataset.json, b/dataset.json; put one")


def test_labels_that_training_refuses_are_refused(tmp_path: Path) -> None:
    source = labelled(tmp_path, ["0.png", "1.png"], ["0.png", "1.png"], [0.0, 1 / 3])
    assert_refused(convert(source, tmp_path / "out"), tmp_path, "label of 1.png is 0.333", "; write [0.333")


# What is bad.


def mostly_rgb(tmp_path: Path, num: int) -> Path:
    grey = random_images(1, num_channels=1)
    return write_images(tmp_path / "in", grey | random_images(num - 1, first=1))


def test_most_images_decide_not_the_first_one(tmp_path: Path) -> None:
    source = mostly_rgb(tmp_path, 12)
    reason = "0.png (L 8x8): expected RGB 8x8 as most images are"
    assert_refused(convert(source, tmp_path / "out"), tmp_path, f"--source: {reason}. Nothing was written.")
    result = convert(source, tmp_path / "d.zip", "--skip-bad")
    assert f"left out, bad: {reason}\n" in result.stderr
    assert len(file_names(tmp_path / "d.zip")) == 12
    assert run("validate", f"--data={source}").stdout == reason.replace(" (L 8x8): ", "\tL\t8x8\t") + "\n"


def test_more_than_a_tenth_must_be_asked_for(tmp_path: Path) -> None:
    source = mostly_rgb(tmp_path, 9)
    message = "1 of 9 images are bad, more than a tenth; nothing was written. --skip-bad=all leaves out any number"
    assert_refused(convert(source, tmp_path / "out", "--skip-bad"), tmp_path, message)
    assert convert(source, tmp_path / "d.zip", "--skip-bad=all").exit_code == 0


def test_images_too_small_for_the_networks(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", random_images(2, side=4))
    reason = "side is below 8, the smallest that the networks take"
    assert_refused(convert(source, tmp_path / "out"), tmp_path, reason)
    assert reason in run("validate", f"--data={source}").stdout


# The account and the formats.


def test_account_as_json(tmp_path: Path) -> None:
    images = {"a/0.png": with_orientation(6, "png"), "b/1.png": two_halves(), "b/2.heic": b"", ".c/3.png": b""}
    result = convert(write_images(tmp_path / "in", images), tmp_path / "d.zip", "--json", "--subfolders-as-labels")
    account = json.loads(result.stdout)
    assert result.stderr == ""
    assert account == {
        "dest": str(tmp_path / "d.zip"), "images": 2, "width": 16, "height": 16, "channels": 3, "source_images": 2,
        "left_out": {"bad": 0, "too_small": 0, "unsupported": 1, "hidden": 1},
        "left_out_names": {"unsupported": ["b/2.heic is a HEIC image"], "hidden": [".c/3.png"]},
        "turned": 1, "composed": 0, "first_frames": 0, "reduced": 0, "labels_in_source": 2, "labels_stored": 2,
        "unlabelled": 0, "classes": {"a": 1, "b": 1}, "classes_without_images": [],
    }  # fmt: skip


def test_jpeg_data_sets(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[..., None].repeat(3, axis=2)
    source = write_images(tmp_path / "in", {f"{i}.png": smooth for i in range(3)})
    dataset = converted(source, tmp_path / "j.zip", "--format=jpg")
    assert np.abs(pixels_of(dataset).astype(int) - smooth).max() <= 2
    assert file_names(tmp_path / "j.zip")[0] == "00000/img00000000.jpg"
    assert label_file(tmp_path / "j.zip")["dataset_tool"]["format"] == "jpg"
    convert(source, tmp_path / "p.zip")
    assert (tmp_path / "j.zip").stat().st_size < (tmp_path / "p.zip").stat().st_size / 5


def test_a_zip_entry_that_unpacks_to_much_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.bmp", bytes(200 << 20))
    assert path.stat().st_size < 300_000
    assert_refused(convert(path, tmp_path / "out"), tmp_path, "0.bmp: cannot be read from the zip: it would unpack to ")


# TFRecords, written here by the format's description.


def chunk(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(content)) + content


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def example(pixels: np.ndarray, packed: bool) -> bytes:
    """A tf.train.Example with the features shape and data."""
    sizes = [pixels.shape[2], *pixels.shape[:2]]
    numbers = chunk(1, b"".join(map(varint, sizes))) if packed else b"".join(b"\x08" + varint(size) for size in sizes)
    data = chunk(1, pixels.transpose(2, 0, 1).tobytes())
    entries = [chunk(1, b"shape") + chunk(2, chunk(3, numbers)), chunk(1, b"data") + chunk(2, chunk(1, data))]
    return chunk(1, b"".join(chunk(1, entry) for entry in entries))


def write_records(path: Path, contents: list[bytes]) -> Path:
    with open(path, "wb") as file:
        for content in contents:
            length = struct.pack("<Q", len(content))
            file.write(length + struct.pack("<I", tfrecords._masked_crc(length)) + content + b"\0\0\0\0")
    return path


def test_check_sum_of_a_record() -> None:
    assert tfrecords._masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) & 0xFFFFFFFF


@pytest.mark.parametrize("packed", [True, False])
def test_tfrecords_with_labels(tmp_path: Path, packed: bool) -> None:
    images = list(random_images(3, side=16).values())
    folder = tmp_path / "in"
    folder.mkdir()
    write_records(folder / "pets-r03.tfrecords", [example(image[:8, :8], packed) for image in images])
    write_records(folder / "pets-r04.tfrecords", [example(image, packed) for image in images])
    with open(folder / "pets-rxx.labels", "wb") as file:
        np.save(file, np.eye(3, dtype=np.float32)[[2, 0, 2]])
    dataset = converted(folder, tmp_path / "out.zip")
    np.testing.assert_array_equal(pixels_of(dataset), np.stack(images))
    assert [label for _, label in label_file(tmp_path / "out.zip")["labels"]] == [2, 0, 2]
    single = converted(folder / "pets-r03.tfrecords", tmp_path / "small.zip")
    assert (single.image_shape, single.label_dim) == ([3, 8, 8], 3)


def test_damaged_tfrecords(tmp_path: Path) -> None:
    good = example(next(iter(random_images(1).values())), True)
    for name, content, message in [
        ("cut", lambda data: data[:-9], "is cut short"),
        ("crc", lambda data: data[:8] + b"\0" + data[9:], "is no TFRecords file, or damaged"),
        ("head", lambda data: data[:7], "is cut short"),
    ]:
        path = write_records(tmp_path / f"{name}.tfrecords", [good])
        path.write_bytes(content(path.read_bytes()))
        assert_refused(convert(path, tmp_path / "out"), tmp_path, f"--source: {path}: {message}")
    two_channels = example(np.zeros([8, 8, 2], np.uint8), True)
    odd = write_records(tmp_path / "odd.tfrecords", [b"", b"\x0a\xff", good[:-20], two_channels])
    assert_refused(convert(odd, tmp_path / "out"), tmp_path, "4 images:", "record 0: is no record with an image",
                   "record 3: expected uint8 data of shape [1 or 3, H, W]")
