"""ImageFolderDataset and its base class: order, subsets, labels, mirroring, workers, hashes, every error."""
import json
import multiprocessing
import os
import pickle
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnnlib.errors import UserError
from tests.helpers import damage_zip_entry, image_bytes, random_images, write_images, zip_folder
from training.data.dataset import Dataset, DatasetError, ImageFolderDataset, subset_indices
from training.data.validation import check_dataset


class Counting(Dataset):
    """Image i is filled with i, except that its first column is 255; labels as given."""

    def __init__(self, raw_shape, labels=None, **kwargs):
        self.labels = labels
        self.num_label_loads = 0
        super().__init__("counting", raw_shape, use_labels=labels is not None, **kwargs)

    def _load_raw_image(self, raw_idx):
        image = np.full(self.image_shape, raw_idx, dtype=np.uint8)
        image[:, :, 0] = 255
        return image

    def _load_raw_labels(self):
        self.num_label_loads += 1
        return self.labels


@pytest.fixture(params=["folder", "zip"])
def make_dataset_path(request, tmp_path):
    """A function that stores {name: pixels} and labels as a folder or as a zip and returns the path."""

    def make(images, labels=None) -> str:
        folder = write_images(tmp_path / "data", images, labels)
        return str(folder if request.param == "folder" else zip_folder(folder))

    return make


# Subsets, mirroring, details.


@pytest.mark.parametrize(("seed", "expected"), [(0, [2, 4, 8, 9]), (7, [0, 2, 5, 8])])
def test_subset_is_the_reference_one(seed, expected):
    assert subset_indices(10, 4, seed).tolist() == expected
    dataset = Counting([10, 1, 2, 2], max_size=4, random_seed=seed)
    assert [dataset[i][0][0, 0, 1] for i in range(len(dataset))] == expected


@pytest.mark.parametrize("max_size", [None, 3, 4])
def test_all_images_without_a_smaller_max_size(max_size):
    assert subset_indices(3, max_size, 0).tolist() == [0, 1, 2]


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_subsets_are_ascending_and_without_repetition(num_items, max_size, seed):
    indices = subset_indices(num_items, max_size, seed)
    assert len(indices) == min(num_items, max_size)
    assert (np.diff(indices) > 0).all()
    assert set(indices.tolist()) <= set(range(num_items))


def test_xflip_appends_mirror_images():
    dataset = Counting([10, 1, 2, 2], labels=np.arange(10), max_size=4, xflip=True)
    assert len(dataset) == 8
    assert [dataset.get_details(i).raw_idx for i in range(8)] == [2, 4, 8, 9] * 2
    assert [dataset.get_details(i).xflip for i in range(8)] == [False] * 4 + [True] * 4
    assert dataset.get_details(5).raw_label == 4
    np.testing.assert_array_equal(dataset[1][0], [[[255, 4], [255, 4]]])
    np.testing.assert_array_equal(dataset[5][0], [[[4, 255], [4, 255]]])
    np.testing.assert_array_equal(dataset[5][1], dataset[1][1])


def test_an_item_belongs_to_the_caller(tmp_path):
    dataset = ImageFolderDataset(str(write_images(tmp_path / "d", random_images(1), [3])), use_labels=True)
    image, label = dataset[0]
    image[:], label[:] = 7, 7
    assert (dataset[0][0] != 7).any()
    assert dataset[0][1].tolist() == [0, 0, 0, 1]


# Labels.


def test_class_numbers_become_one_hot():
    dataset = Counting([3, 1, 2, 2], labels=np.array([2, 0, 4]), max_size=1, random_seed=0)
    assert dataset.label_shape == [5]  # over all labels, not only those of the subset
    assert dataset.label_dim == 5
    assert dataset.has_labels
    assert dataset.has_onehot_labels
    label = dataset.get_label(0)
    assert label.dtype == np.float32
    assert label.tolist() == [1 if i == dataset.get_details(0).raw_label else 0 for i in range(5)]


def test_vectors_are_returned_as_they_are():
    vectors = np.array([[0.5, -1], [2, 3]], dtype=np.float32)
    dataset = Counting([2, 1, 2, 2], labels=vectors)
    assert dataset.label_shape == [2]
    assert not dataset.has_onehot_labels
    np.testing.assert_array_equal(dataset[1][1], vectors[1])


def test_no_labels():
    dataset = Counting([2, 1, 2, 2])
    assert dataset.label_shape == [0]
    assert dataset.label_dim == 0
    assert not dataset.has_labels
    assert dataset[0][1].shape == (0,)
    assert dataset[0][1].dtype == np.float32


def test_labels_are_loaded_once_and_not_pickled():
    dataset = Counting([3, 1, 2, 2], labels=np.array([2, 0, 4]))
    assert dataset.num_label_loads == 0
    dataset.get_label(0)
    dataset.get_label(1)
    assert dataset.num_label_loads == 1
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.get_label(2).tolist() == [0, 0, 0, 0, 1]
    assert copy.num_label_loads == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0]), "counting: 1 labels for 2 images"),
        (np.array([0, -1]), r"counting: labels are int64 of shape \[2\], expected int64 class numbers from 0 up"),
        (np.array([0.5, 1]), r"counting: labels are float64 of shape \[2\]"),
        (np.zeros([2, 3, 4], np.float32), r"counting: labels have shape \[3, 4\], expected class numbers or flat"),
    ],
)
def test_wrong_labels_of_a_subclass(labels, message):
    with pytest.raises(DatasetError, match=message):
        _ = Counting([2, 1, 2, 2], labels=labels).label_dim


def test_resolution_of_images_that_are_not_square():
    with pytest.raises(DatasetError, match=r"counting: images are 4x2, expected square ones\. Run dataset_tool"):
        _ = Counting([1, 1, 2, 4]).resolution


# Folder and zip.


@pytest.mark.parametrize("num_channels", [1, 3])
def test_images_come_back_in_name_order(make_dataset_path, num_channels):
    images = random_images(5, num_channels=num_channels)
    names = ["b/1.png", "a.png", "a-b/x.PNG", "a/x.png", "z.bmp"]
    path = make_dataset_path(dict(zip(names, images.values(), strict=True)))
    dataset = ImageFolderDataset(path)
    assert len(dataset) == 5
    assert dataset.name == "data"
    assert dataset.image_shape == [num_channels, 8, 8]
    assert dataset.num_channels == num_channels
    assert dataset.resolution == 8
    by_name = dict(zip(names, images.values(), strict=True))
    for (image, label), name in zip(dataset, sorted(names), strict=True):
        assert image.dtype == np.uint8
        assert label.shape == (0,)
        np.testing.assert_array_equal(image, by_name[name].transpose(2, 0, 1))


def test_other_files_are_passed_over(make_dataset_path, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("hello")
    assert len(ImageFolderDataset(make_dataset_path(random_images(2)))) == 2


def test_labels_of_dataset_json(make_dataset_path):
    path = make_dataset_path(random_images(3), [2, 0, 2])
    dataset = ImageFolderDataset(path, use_labels=True)
    assert [dataset.get_label(i).tolist() for i in range(3)] == [[0, 0, 1], [1, 0, 0], [0, 0, 1]]
    assert ImageFolderDataset(path).label_dim == 0


def test_vector_labels_of_dataset_json(make_dataset_path):
    dataset = ImageFolderDataset(make_dataset_path(random_images(2), [[0, 1.5], [1, 0]]), use_labels=True)
    assert dataset.label_dim == 2
    assert dataset[0][1].tolist() == [0, 1.5]


def test_null_labels_are_none(make_dataset_path, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text('{"labels": null}')
    assert not ImageFolderDataset(make_dataset_path(random_images(2)), use_labels=True).has_labels


@given(data=st.data())
def test_what_goes_in_comes_out(tmp_path_factory, data):
    side = data.draw(st.sampled_from([8, 16]))
    num_channels = data.draw(st.sampled_from([1, 3]))
    raw = data.draw(st.binary(min_size=2 * side * side * num_channels, max_size=2 * side * side * num_channels))
    pixels = np.frombuffer(raw, np.uint8).reshape(2, side, side, num_channels)
    folder = write_images(tmp_path_factory.mktemp("property"), {"0.png": pixels[0], "1.png": pixels[1]})
    for path in (folder, zip_folder(folder)):
        dataset = ImageFolderDataset(str(path), xflip=True)
        stored = np.stack([image for image, _ in dataset])
        np.testing.assert_array_equal(stored[:2], pixels.transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(stored[2:], pixels.transpose(0, 3, 1, 2)[..., ::-1])
        dataset.close()


# Processes.


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("forkserver", 1)])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_read_what_the_parent_reads(make_dataset_path, method, workers):
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    dataset = ImageFolderDataset(make_dataset_path(random_images(24), list(range(24))), use_labels=True)
    images, labels = (torch.from_numpy(np.stack(part)) for part in zip(*dataset, strict=True))
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=method)
    from_workers = [torch.cat(part) for part in zip(*loader, strict=True)]
    assert torch.equal(from_workers[0], images)
    assert torch.equal(from_workers[1], labels)
    assert torch.equal(torch.from_numpy(dataset[3][0]), images[3])  # the parent's handle was not disturbed


def test_a_worker_names_the_file_in_one_line(tmp_path):
    folder = write_images(tmp_path / "d", random_images(2))
    (folder / "1.png").write_bytes(b"junk")
    batches = iter(torch.utils.data.DataLoader(ImageFolderDataset(str(folder)), num_workers=1))
    next(batches)
    with pytest.raises(DatasetError) as caught:
        next(batches)
    assert next(batches, None) is None  # ends the worker, which a forgotten iterator does only after five seconds
    assert str(caught.value).startswith(f"{folder}/1.png: cannot be read: ")
    assert "\n" not in str(caught.value)


def test_usable_after_close(make_dataset_path):
    dataset = ImageFolderDataset(make_dataset_path(random_images(2)))
    before = dataset[1][0]
    dataset.close()
    np.testing.assert_array_equal(dataset[1][0], before)


# Content hash.


def test_content_hash_is_that_of_the_content(make_dataset_path):
    path = make_dataset_path(random_images(4), [0, 1, 2, 3])
    first = ImageFolderDataset(path, use_labels=True).content_hash()
    assert len(first) == 64
    assert first == ImageFolderDataset(path, use_labels=True).content_hash()
    variants = [dict(), dict(use_labels=True, xflip=True), dict(use_labels=True, max_size=2),
                dict(use_labels=True, max_size=2, random_seed=5)]
    hashes = [first, *(ImageFolderDataset(path, **kwargs).content_hash() for kwargs in variants)]
    assert len(set(hashes)) == len(hashes)


def test_content_hash_notices_one_pixel(make_dataset_path, tmp_path):
    images = random_images(4)
    path = make_dataset_path(images)
    first = ImageFolderDataset(path).content_hash()
    time_stamp = os.stat(tmp_path / "data" / "2.png")
    images["2.png"][3, 3, 0] ^= 1
    make_dataset_path(images)
    os.utime(tmp_path / "data" / "2.png", ns=(time_stamp.st_atime_ns, time_stamp.st_mtime_ns))
    assert ImageFolderDataset(path).content_hash() != first


def test_content_hash_notices_one_label(make_dataset_path):
    hashes = [
        ImageFolderDataset(make_dataset_path(random_images(2), labels), use_labels=True).content_hash()
        for labels in ([0, 1], [1, 1], [[0, 1], [1, 1]])
    ]
    assert len(set(hashes)) == 3


def test_content_hash_of_a_plain_subclass():
    assert Counting([3, 1, 2, 2]).content_hash() != Counting([4, 1, 2, 2]).content_hash()


# Errors. Each names the path, so the parameters hold what comes after it.


def truncated_png() -> bytes:
    whole = image_bytes(random_images(1)["0.png"])
    return whole[: len(whole) // 2]


def bomb_png() -> bytes:
    """Claims to be of 60000 x 60000 pixels."""
    whole = image_bytes(np.zeros([8, 8, 3], np.uint8))
    header = b"IHDR" + struct.pack(">II", 60000, 60000) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


BAD_FILES = [
    (b"", "cannot be read: not an image, or damaged at its start"),
    (b"junk", "cannot be read: not an image, or damaged at its start"),
    (truncated_png(), "cannot be read: image file is truncated"),
    (bomb_png(), "has 60000x60000 pixels, more than 89,478,485"),
    (image_bytes(np.zeros([8, 8, 4], np.uint8)), r"\(RGBA 8x8\): has an alpha channel, expected greyscale"),
    (image_bytes(np.zeros([8, 8, 2], np.uint8)), r"\(LA 8x8\): has an alpha channel"),
    (image_bytes(PIL.Image.new("CMYK", (8, 8)), ".jpg"), r"\(CMYK 8x8\): has mode CMYK, expected greyscale \(L\)"),
    (image_bytes(PIL.Image.fromarray(np.zeros([8, 8], np.float32)), ".tif"), r"\(F 8x8\): has more than 16 bits per"),
    (image_bytes(np.zeros([8, 9, 3], np.uint8)), r"\(RGB 9x8\): "),
    (image_bytes(np.zeros([4, 4, 3], np.uint8)), r"\(RGB 4x4\): expected RGB 8x8 as "),
    (image_bytes(np.zeros([8, 8, 1], np.uint8)), r"\(L 8x8\): expected RGB 8x8 as "),
]


@pytest.mark.parametrize(("content", "message"), BAD_FILES, ids=[str(i) for i in range(len(BAD_FILES))])
def test_bad_image_is_named(make_dataset_path, content, message):
    path = make_dataset_path(random_images(2) | {"bad.png": content})
    dataset = ImageFolderDataset(path)
    with pytest.raises(DatasetError, match=rf"data(\.zip)?/bad\.png:? ?{message}.*Run dataset_tool.py") as caught:
        dataset[2]
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, OSError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "message"),
    [((8, 9), r"0\.png \(RGB 9x8\): is not square"), ((6, 6), r"0\.png \(RGB 6x6\): side is not a power of two")],
)
def test_size_that_networks_do_not_take(make_dataset_path, size, message):
    path = make_dataset_path({"0.png": np.zeros([*size, 3], np.uint8)})
    with pytest.raises(DatasetError, match=message + ".*Run dataset_tool.py"):
        ImageFolderDataset(path)


def test_other_resolution_than_asked_for(make_dataset_path):
    path = make_dataset_path(random_images(1))
    assert ImageFolderDataset(path, resolution=8).resolution == 8
    with pytest.raises(DatasetError, match=r"images are 8x8, expected resolution 16\. .*to 16x16 with dataset_tool"):
        ImageFolderDataset(path, resolution=16)


def test_no_images(make_dataset_path):
    with pytest.raises(DatasetError, match="no image files found"):
        ImageFolderDataset(make_dataset_path({}))


def test_paths_that_are_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match="missing: no such folder or zip"):
        ImageFolderDataset(str(tmp_path / "missing"))
    other = tmp_path / "data.tar"
    other.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"data\.tar: expected a folder or a \.zip. Make one with dataset_tool.py"):
        ImageFolderDataset(str(other))
    broken = tmp_path / "data.zip"
    broken.write_bytes(b"PK but not really")
    with pytest.raises(DatasetError, match=r"data\.zip: cannot be read as a zip: "):
        ImageFolderDataset(str(broken))


def test_damaged_zip_entry_is_named(tmp_path):
    path = zip_folder(write_images(tmp_path / "data", random_images(2)))
    damage_zip_entry(path, "1.png")
    with pytest.raises(DatasetError, match=r"data\.zip/1\.png: cannot be read from the zip: Bad CRC-32"):
        ImageFolderDataset(str(path))[1]


def test_damaged_label_file_in_a_zip(tmp_path):
    path = zip_folder(write_images(tmp_path / "data", random_images(2), [0, 1]))
    damage_zip_entry(path, "dataset.json")
    with pytest.raises(DatasetError, match=r"data\.zip/dataset\.json: cannot be read from the zip: Bad CRC-32"):
        _ = ImageFolderDataset(str(path), use_labels=True).label_dim


def test_file_that_vanished_is_named(tmp_path):
    folder = write_images(tmp_path / "data", random_images(2))
    dataset = ImageFolderDataset(str(folder))
    (folder / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"1\.png: cannot be read: No such file"):
        dataset[1]
    with pytest.raises(DatasetError, match=r"1\.png: cannot be read: No such file"):
        dataset.content_hash()


def labels_json(*labels) -> str:
    return json.dumps({"labels": [[f"{i}.png", label] for i, label in enumerate(labels)]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", 'expected an object with the key "labels"'),
        ('{"label": []}', 'expected an object with the key "labels"'),
        ('{"labels": {}}', 'expected "labels" to be null or a list, found dict'),
        ('{"labels": [["0.png", 1, 2]]}', r'expected \[name, label\] pairs in "labels", found \["0.png", 1, 2\]'),
        (labels_json(0), r"no label for 1\.png\. List every image"),
        (labels_json(), r"no label for 0\.png, 1\.png\. List every image"),
        (labels_json(0, None), r"no label for 1\.png\."),
        (labels_json(0, [1, 0]), r"label of 1\.png is a vector of shape \[2\], but 0\.png has a class number"),
        (labels_json([0, 1], 1), r"label of 1\.png is a class number, but 0\.png has a vector of shape \[2\]"),
        (labels_json([0, 1], [1]), r"label of 1\.png is a vector of shape \[1\], but 0\.png has a vector of shape"),
        (labels_json(0, -1), r"label of 1\.png is -1, expected a class number from 0 up"),
        (labels_json(0, "cat"), r'label of 1\.png is "cat", expected a class number \(0, 1, ...\) or a list'),
        (labels_json(0, 1.5), r"label of 1\.png is 1\.5, expected a class number"),
        (labels_json(0, True), r"label of 1\.png is true, expected a class number"),
        (labels_json([0.0], [float("nan")]), "is not valid JSON: NaN is no JSON number"),
        ("[" * 100_000, "is not valid JSON: it is nested too deeply"),
        (labels_json(0, 0.5), r"label of 1\.png is 0\.5, expected a class number .*; write \[0\.5\] for"),
        (labels_json(0, 1 << 16), r"label of 1\.png is 65536, expected a class number below 65536"),
        (labels_json([[0], [1]], [[0], [1, 2]]), r"label of 1\.png is \[\[0\], \[1, 2\]\], expected a class number"),
    ],
)
def test_bad_labels_are_named(make_dataset_path, tmp_path, text, message):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text(text)
    path = make_dataset_path(random_images(2))
    dataset = ImageFolderDataset(path, use_labels=True)
    with pytest.raises(DatasetError, match=rf"data(\.zip)?/dataset\.json: {message}"):
        _ = dataset.label_dim
    assert check_dataset(path).label_error is not None


# The checker finds what the loader refuses.


def test_check_of_a_good_data_set(make_dataset_path):
    report = check_dataset(make_dataset_path(random_images(3), [0, 4, 1]), resolution=8)
    assert report.num_images == 3
    assert report.shape == (8, 8, 3)
    assert report.label_shape == [5]
    assert report.label_error is None
    assert report.bad_files == []


def test_check_lists_every_bad_file(make_dataset_path):
    bad = {f"bad{i:02d}.png": content for i, (content, _) in enumerate(BAD_FILES)}
    report = check_dataset(make_dataset_path(random_images(3) | bad))
    assert [finding.name for finding in report.bad_files] == list(bad)
    assert report.bad_files[4].row() == "bad04.png\tRGBA\t8x8\thas an alpha channel, expected greyscale (L) or RGB"
    assert report.bad_files[0].row().startswith("bad00.png\t-\t-\tcannot be read")


def test_check_blames_the_odd_first_image(tmp_path):
    folder = write_images(tmp_path / "data", {"0.png": np.zeros([16, 16, 3], np.uint8), **random_images(3, first=1)})
    report = check_dataset(str(folder))
    assert [finding.row() for finding in report.bad_files] == ["0.png\tRGB\t16x16\texpected RGB 8x8 as most images are"]
    report = check_dataset(str(folder), resolution=16)
    assert [finding.name for finding in report.bad_files] == ["1.png", "2.png", "3.png"]
    assert report.bad_files[0].reason == "expected RGB 16x16 as requested"


def test_check_when_nothing_is_usable(tmp_path):
    report = check_dataset(str(write_images(tmp_path / "data", {"0.png": b"junk"})))
    assert report.shape is None
    assert len(report.bad_files) == 1
    with pytest.raises(DatasetError, match="no image files found"):
        check_dataset(str(write_images(tmp_path / "none", {})))
