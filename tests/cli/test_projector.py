"""projector.py: its files, targets of all kinds, detectors, the video and errors."""
import subprocess
import sys
import types

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

import dnnlib
import projector
from metrics import torchscript
from tests import tiny
from tests.metrics import toys
from training.checkpoints.pickles import open_networks, save_networks
from training.data.images import PROJECTED, truncated


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return tiny.write_teacher(tmp_path_factory.mktemp("net") / "rgb.pkl")


@pytest.fixture(autouse=True)
def _no_ffmpeg(monkeypatch):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # importing it fails


def write_target(path, width=16, height=16, mode="RGB", seed=0):
    rng = np.random.RandomState(seed)
    PIL.Image.fromarray(rng.randint(0, 256, [height, width, 3], dtype=np.uint8)).convert(mode).save(path)
    return path


def run(**options):
    options = {"num-steps": 3, "device": "cpu", "detector": "D", "save-video": "false", **options}
    flags = [f"--{name}={value}" for name, value in options.items() if value is not None]
    return CliRunner().invoke(projector.main, flags)


def read(path):
    with PIL.Image.open(path) as picture:
        return np.asarray(picture)


def test_files(tmp_path, network):
    out = tmp_path / "new" / "out"
    result = run(network=network, target=write_target(tmp_path / "in.png"), outdir=out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == {"target.png", "proj.png", "projected_w.npz"}
    np.testing.assert_array_equal(read(out / "target.png"), read(tmp_path / "in.png"))
    with np.load(out / "projected_w.npz") as data:
        w = data["w"]
    G = tiny.tiny_networks()["G_ema"]
    assert w.dtype == np.float32
    assert w.shape == (1, G.num_ws, 16)
    expected = truncated(G.synthesis(torch.from_numpy(w), noise_mode="const"), PROJECTED)[0]
    np.testing.assert_array_equal(read(out / "proj.png"), expected)


def test_targets_are_read_as_data_sets_are(tmp_path, network):
    """Upright, on white; and deep images are refused, not clipped."""
    upright = np.zeros([16, 16, 3], np.uint8)
    upright[:8] = 255, 0, 0
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    lying = PIL.Image.fromarray(upright).transpose(PIL.Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "phone.png", exif=exif)
    assert run(network=network, target=tmp_path / "phone.png", outdir=tmp_path / "a").exit_code == 0
    np.testing.assert_array_equal(read(tmp_path / "a" / "target.png"), upright)
    PIL.Image.new("RGBA", (16, 16), (255, 0, 255, 0)).save(tmp_path / "clear.png")
    assert run(network=network, target=tmp_path / "clear.png", outdir=tmp_path / "b").exit_code == 0
    assert (read(tmp_path / "b" / "target.png") == 255).all()
    PIL.Image.fromarray(np.full([16, 16], 30000, np.uint16)).save(tmp_path / "deep.png")
    assert run(network=network, target=tmp_path / "deep.png", outdir=tmp_path / "c").exit_code == 0
    assert (read(tmp_path / "c" / "target.png") == 30000 // 256).all()


def test_generate_reads_the_result(tmp_path, network):
    import generate

    run(network=network, target=write_target(tmp_path / "in.png"), outdir=tmp_path)
    flags = [f"--network={network}", f"--projected-w={tmp_path}/projected_w.npz", f"--outdir={tmp_path}"]
    result = CliRunner().invoke(generate.main, [*flags, "--device=cpu"])
    assert result.exit_code == 0, result.output
    # The two scripts round differently, by half a level.
    assert np.abs(read(tmp_path / "proj00.png").astype(int) - read(tmp_path / "proj.png")).max() <= 1


def test_seed_decides(tmp_path, network):
    target = write_target(tmp_path / "in.png")
    collected = {}
    for name, seed in (("default", None), ("same", 303), ("other", 4)):
        assert run(network=network, target=target, outdir=tmp_path / name, seed=seed).exit_code == 0
        with np.load(tmp_path / name / "projected_w.npz") as data:
            collected[name] = data["w"]
    np.testing.assert_array_equal(collected["default"], collected["same"])
    assert (collected["default"] != collected["other"]).any()


@pytest.mark.parametrize(
    ("img_channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA"), (1, "RGB"), (3, "P"), (3, "RGBA")]
)
def test_any_target_for_any_channels(tmp_path, img_channels, mode):
    network = tiny.write_teacher(tmp_path / "net.pkl", channels=img_channels)
    target = write_target(tmp_path / "in.png", mode=mode)
    result = run(network=network, target=target, outdir=tmp_path, **{"num-steps": 1})
    assert result.exit_code == 0, result.output
    shape = (16, 16) if img_channels == 1 else (16, 16, img_channels)
    assert read(tmp_path / "target.png").shape == read(tmp_path / "proj.png").shape == shape


@pytest.mark.parametrize(("width", "height"), [(48, 32), (33, 50), (16, 8)])
def test_target_is_cropped_and_resized(tmp_path, network, width, height):
    target = write_target(tmp_path / "in.png", width, height)
    assert run(network=network, target=target, outdir=tmp_path, **{"num-steps": 1}).exit_code == 0
    side = min(width, height)
    pixels = read(target)[(height - side) // 2 :, (width - side) // 2 :][:side, :side]
    expected = np.asarray(PIL.Image.fromarray(pixels).resize((16, 16), PIL.Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(read(tmp_path / "target.png"), expected)


def test_target_is_turned_upright(tmp_path, network):
    path = tmp_path / "in.png"
    pixels = read(write_target(path))
    picture = PIL.Image.fromarray(pixels)
    picture.getexif()[0x0112] = 6  # orientation: to be turned clockwise
    picture.save(path, exif=picture.getexif())
    assert run(network=network, target=path, outdir=tmp_path, **{"num-steps": 1}).exit_code == 0
    np.testing.assert_array_equal(read(tmp_path / "target.png"), np.rot90(pixels, -1))


def test_class(tmp_path):
    network = tiny.write_teacher(tmp_path / "net.pkl", c_dim=2)
    target = write_target(tmp_path / "in.png")
    collected = []
    for idx in (0, 1):
        assert run(network=network, target=target, outdir=tmp_path, **{"class": idx}).exit_code == 0
        with np.load(tmp_path / "projected_w.npz") as data:
            collected.append(data["w"])
    assert (collected[0] != collected[1]).any()
    result = run(network=network, target=target, outdir=tmp_path)
    assert result.output == "Error: --class: give the class of the images, 0 to 1, or a label of 2 numbers\n"


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return toys.write_detector(tmp_path_factory.mktemp("detector") / "toy.pt")


@pytest.mark.parametrize("img_channels", [1, 3])
def test_detector_file(tmp_path, detector, img_channels):
    network = tiny.write_teacher(tmp_path / "net.pkl", channels=img_channels)
    target = write_target(tmp_path / "in.png")
    result = run(network=network, target=target, outdir=tmp_path, detector=detector)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "projected_w.npz") as data:
        actual = data["w"]
    assert run(network=network, target=target, outdir=tmp_path, detector="D").exit_code == 0
    with np.load(tmp_path / "projected_w.npz") as data:
        assert (data["w"] != actual).any()


def test_without_the_published_detector_the_discriminator_compares(tmp_path, network, monkeypatch):
    monkeypatch.setattr(dnnlib.urls, "_cache_dir", str(tmp_path / "cache"))
    target = write_target(tmp_path / "in.png")
    result = run(network=network, target=target, outdir=tmp_path / "out", detector=None)
    assert result.exit_code == 0, result.output
    warning = "Warning: images are compared by the network's own discriminator, since detector vgg16: URL "
    assert warning in result.output
    assert (tmp_path / "out" / "proj.png").exists()


def test_a_generator_alone_needs_a_detector(tmp_path, network, monkeypatch):
    monkeypatch.setattr(dnnlib.urls, "_cache_dir", str(tmp_path / "cache"))
    data = open_networks(str(network))
    save_networks({"G_ema": data["G_ema"]}, tmp_path / "alone.pkl")
    result = run(network=tmp_path / "alone.pkl", target=write_target(tmp_path / "in.png"), outdir=tmp_path / "out",
                 detector=None)
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line]
    assert line.startswith("Error: --detector: the network's file has no discriminator to compare images with, and ")
    assert line.endswith("as --detector=PATH")


def test_detector_that_was_asked_for_must_be_there(tmp_path, network):
    result = run(network=network, target=write_target(tmp_path / "in.png"), outdir=tmp_path, detector="/nowhere/v.pt")
    assert result.exit_code == 1
    assert result.output.startswith("Error: detector /nowhere/v.pt: no such file")


def test_detector_without_lpips(tmp_path, network):
    path = tmp_path / "plain.pt"
    with open(path, "wb") as file:
        torchscript.save(torchscript.script(torch.nn.Flatten()), file)
    result = run(network=network, target=write_target(tmp_path / "in.png"), outdir=tmp_path, detector=path)
    assert result.exit_code == 1
    assert result.output.startswith("Error: detector plain: does not know the option resize_images")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "/nowhere/in.png"}, "Error: --target: /nowhere/in.png: cannot be read: No such file"),
        ({"target": __file__}, f"Error: --target: {__file__}: cannot be read: not an image"),
        ({"network": __file__}, f"Error: --network: {__file__}"),
        ({"outdir": "/proc/nowhere"}, "Error: --outdir: cannot write to '/proc/nowhere'"),
    ],
)
def test_errors(tmp_path, network, options, message):
    target = write_target(tmp_path / "in.png")
    result = run(**{"network": network, "target": target, "outdir": tmp_path / "out", **options})
    assert result.exit_code == 1
    assert result.output.startswith(message)
    assert result.output.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_five_channels(tmp_path):
    network = tiny.write_teacher(tmp_path / "net.pkl", channels=5)
    result = run(network=network, target=write_target(tmp_path / "in.png"), outdir=tmp_path)
    assert result.output == "Error: --network: images of 5 channels cannot be written as PNG\n"


@pytest.mark.parametrize("missing", ["network", "target", "outdir"])
def test_required_options(missing):
    result = run(**{"network": "a.pkl", "target": "b.png", "outdir": "c", missing: None})
    assert result.exit_code == 2
    assert f"Missing option '--{missing}'" in result.output


@pytest.mark.parametrize("options", [{"num-steps": 0}, {"seed": -1}, {"seed": 2**32}, {"class": -1}])
def test_numbers_out_of_range(options):
    result = run(network="a.pkl", target="b.png", outdir="c", **options)
    assert result.exit_code == 2
    assert f"Invalid value for '--{next(iter(options))}'" in result.output


def test_video_without_ffmpeg(tmp_path, network):
    options = {"network": network, "target": write_target(tmp_path / "in.png"), "outdir": tmp_path / "out"}
    result = run(**options, **{"save-video": "true"})
    assert result.exit_code == 1
    assert result.output.startswith("Error: --save-video: a video needs imageio-ffmpeg (pip install imageio-ffmpeg), ")
    result = run(**options, **{"save-video": None})
    assert result.exit_code == 0
    assert result.output.count("Note: no proj.mp4 will be written; a video needs imageio-ffmpeg") == 1
    assert not (tmp_path / "out" / "proj.mp4").exists()


class FakeVideo:
    """Stands for imageio's writer: a file, and the frames that were given to it."""

    def __init__(self, path, **options):
        self.path, self.options, self.frames = path, options, []

    def append_data(self, frame):
        self.frames.append(frame)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with open(self.path, "wb") as file:
            file.write(b"video")


@pytest.mark.parametrize("img_channels", [1, 3, 4])
def test_frames_of_the_video(tmp_path, monkeypatch, img_channels):
    import imageio

    videos = []

    def get_writer(*args, **options):
        videos.append(FakeVideo(*args, **options))
        return videos[0]

    monkeypatch.setattr(imageio, "get_writer", get_writer)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", types.SimpleNamespace(get_ffmpeg_exe=lambda: "ffmpeg"))
    network = tiny.write_teacher(tmp_path / "net.pkl", channels=img_channels)
    out = tmp_path / "out"
    result = run(network=network, target=write_target(tmp_path / "in.png"), outdir=out, **{"save-video": None})
    assert result.exit_code == 0, result.output
    (video,) = videos
    assert video.options["fps"] == 10
    assert video.options["codec"] == "libx264"
    assert video.options["bitrate"] == "16M"
    assert [frame.shape for frame in video.frames] == [(16, 32, 3)] * 3
    for half, name in ((slice(16), "target.png"), (slice(16, 32), "proj.png")):
        pixels = read(out / name)
        pixels = np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels[:, :, :3]
        np.testing.assert_array_equal(video.frames[-1][:, half], pixels)
    assert (out / "proj.mp4").read_bytes() == b"video"
    assert {path.name for path in out.iterdir()} == {"target.png", "proj.png", "projected_w.npz", "proj.mp4"}


def test_real_video(tmp_path, network, monkeypatch):
    monkeypatch.delitem(sys.modules, "imageio_ffmpeg")
    pytest.importorskip("imageio_ffmpeg")
    target = write_target(tmp_path / "in.png")
    result = run(network=network, target=target, outdir=tmp_path / "out", **{"save-video": "true"})
    assert result.exit_code == 0, result.output
    content = (tmp_path / "out" / "proj.mp4").read_bytes()
    assert content[4:8] == b"ftyp"


def test_help_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import projector, style_mixing; projector.main(['--help'])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Project an image into the latent space" in result.stdout
