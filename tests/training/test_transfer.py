"""Transfer learning: what is copied from a pickle, what is said about it, and the names of the published sources."""
import pytest
import torch

from dnnlib.errors import UserError
from tests import tiny
from tests.training import tiny_runs
from training import options as config
from training.checkpoints import pickles
from training.checkpoints.transfer import from_pickle, transplant

SAME_IMAGES = 1e-5  # of ws and images of order 1, in float32


def tensors(module):
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def test_the_same_shapes_are_copied_whole():
    source, target = tiny.tiny_generator(seed=1), tiny.tiny_generator(seed=2)
    report = transplant(source, target)
    assert report.copied == list(tensors(target))
    assert (report.partial, report.new) == ([], [])
    for name, tensor in tensors(target).items():
        assert torch.equal(tensor, tensors(source)[name]), name
    assert report.lines("G") == [f"G: {len(report.copied)} tensors copied, 0 in part, 0 new"]


def test_a_generator_that_gains_labels_makes_the_images_it_made():
    source, target = tiny.tiny_generator(seed=1), tiny.tiny_generator(c_dim=3, seed=2)
    embedding = target.mapping.embed.weight.clone()
    report = transplant(source, target)
    assert report.partial == ["mapping.fc0.weight"]
    assert report.new == ["mapping.embed.weight", "mapping.embed.bias"]
    assert torch.equal(target.mapping.embed.weight, embedding)  # as it was initialised
    assert report.lines("G_ema")[1:] == [
        "  partial: mapping.fc0.weight", "  new: mapping.embed.weight", "  new: mapping.embed.bias"
    ]
    z, c = tiny.latents(3, c_dim=3)
    before = source(z, None, noise_mode="const")
    assert torch.allclose(target(z, c, noise_mode="const"), before, atol=SAME_IMAGES * before.abs().max())
    target.mapping.requires_grad_(True)
    target.mapping(z, c).square().sum().backward()
    assert target.mapping.fc0.weight.grad[:, 16:].abs().max() > 0  # and can learn to tell them apart


def test_a_generator_that_loses_labels_loses_their_part_only():
    source, target = tiny.tiny_generator(c_dim=3, seed=1), tiny.tiny_generator(seed=2)
    report = transplant(source, target)
    assert (report.partial, report.new) == (["mapping.fc0.weight"], [])
    source.mapping.fc0.weight[:, 16:] = 0
    z, c = tiny.latents(3, c_dim=3)
    assert torch.allclose(target.mapping(z, None), source.mapping(z, c), atol=SAME_IMAGES)


def test_a_discriminator_that_gains_labels():
    source, target = tiny.tiny_discriminator(seed=1), tiny.tiny_discriminator(c_dim=3, seed=2)
    report = transplant(source, target)
    assert report.partial == ["b4.out.weight", "b4.out.bias"]
    assert report.new
    assert all(name.startswith("mapping.") for name in report.new)
    assert torch.equal(target.b4.out.weight[:1], source.b4.out.weight)


def test_two_axes_that_differ_are_new():
    source = torch.nn.ParameterDict({"a": torch.ones(2, 3), "b": torch.ones(2)})
    target = torch.nn.ParameterDict({"a": torch.zeros(3, 4), "b": torch.zeros(2, 1)}).requires_grad_(False)
    for module in (source, target):
        module.img_resolution, module.img_channels = 16, 3
    report = transplant(source, target)
    assert report.new == ["a", "b"]
    assert not any(tensor.any() for tensor in target.values())


@pytest.mark.parametrize(
    ("size", "message"),
    [({"resolution": 32}, "resume: img_resolution is 32 in the pickle, but 16 in the data set"),
     ({"channels": 1}, "resume: img_channels is 1 in the pickle, but 3 in the data set")],
)
def test_other_images_are_refused(size, message):
    with pytest.raises(UserError, match=message):
        transplant(tiny.tiny_generator(**size), tiny.tiny_generator())


def test_every_network_of_a_pickle(tmp_path):
    path = tiny.write_teacher(tmp_path / "source.pkl", seed=3)
    source = pickles.open_networks(path)
    networks = {name: tiny.tiny_networks()[name] for name in pickles.NETWORKS}
    lines = from_pickle(networks, path)
    assert lines[0] == (
        f"Starting from {path}; its optimizer state, image count and augmentation strength are not in a pickle"
    )
    assert [line.split(":")[0] for line in lines[1:]] == ["G", "D", "G_ema"]
    for name, network in networks.items():
        for key, tensor in tensors(network).items():
            assert torch.equal(tensor, tensors(source[name])[key]), (name, key)


def test_a_run_starts_from_a_pickle_without_labels_and_says_so(tmp_path, capsys):
    data = tiny.write_data(tmp_path / "data", num_classes=3)
    path = tiny.write_teacher(tmp_path / "source.pkl", seed=3)
    found = tiny_runs.options(data, *tiny_runs.STYLEGAN2, "--cond=true", "--aug=ada", f"--resume={path}")
    assert found["ada_kimg"] == 100
    assert found["ema_rampup"] is None
    capsys.readouterr()
    folder = tiny_runs.run(tmp_path / "run", found, total_kimg=0.004)
    output = capsys.readouterr().out
    assert f"Starting from {path}; its optimizer state" in output
    assert "tensors copied, 1 in part, 2 new\n  partial: mapping.fc0.weight\n  new: mapping.embed.weight\n" in output
    average = pickles.open_networks(str(folder / "network-snapshot-000000.pkl"))["G_ema"]
    assert average.c_dim == 3
    # After one step of a small learning rate the synthesis network is still the source's.
    source = pickles.open_networks(path)["G_ema"].synthesis.b8.conv1.weight
    assert torch.allclose(average.synthesis.b8.conv1.weight, source, atol=0.01)


def test_freezed_layers_stay_as_they_are_in_the_pickle(tmp_path):
    data = tiny.write_data(tmp_path / "data")
    path = tiny.write_teacher(tmp_path / "source.pkl", seed=3)
    found = tiny_runs.options(data, *tiny_runs.STYLEGAN2, "--aug=noaug", "--freezed=2", f"--resume={path}")
    folder = tiny_runs.run(tmp_path / "run", found, total_kimg=0.008)
    before, after = (
        tensors(pickles.open_networks(str(name))["D"]) for name in (path, folder / "network-snapshot-000000.pkl")
    )
    frozen = [name for name in before if name.startswith(("b16.fromrgb.", "b16.conv0."))]
    assert {name for name in before if torch.equal(before[name], after[name])} == {
        *frozen, *(name for name in before if name.endswith("resample_filter"))
    }
    assert len(frozen) > 2


@pytest.mark.parametrize("name", ["ffhq256", "ffhq512", "ffhq1024", "celebahq256", "lsundog256"])
def test_named_sources(name):
    url = config.transfer_url(name)
    assert url.startswith("https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-")
    kind, resolution = name.rstrip("0123456789"), name.lstrip("abcdefghijklmnopqrstuvwxyz")
    assert url.split("/")[-1].startswith(f"{kind}-res{resolution}-")
    assert url.endswith(".pkl")


def test_names_urls_and_paths(tmp_path):
    path = tmp_path / "net.pkl"
    with pytest.raises(UserError, match=r"--resume: .*net.pkl: no such run directory, network pickle, URL or name of a "
                                        r"source network \(ffhq256, "):
        config.transfer_url(str(path))
    path.write_bytes(b"")
    assert config.transfer_url(str(path)) == str(path)
    assert config.transfer_url("https://example.com/net.pkl") == "https://example.com/net.pkl"


def test_a_named_source_in_the_options(tmp_path):
    data = tiny.write_data(tmp_path / "data")
    found = tiny_runs.options(data, *tiny_runs.STYLEGAN2, "--resume=ffhq256", "--freezed=10")
    assert found["init_kwargs"]["func_name"] == "training.transfer.from_pickle"
    assert found["init_kwargs"]["url"] == config.TRANSFER_BASE + "ffhq-res256-mirror-paper256-noaug.pkl"
    assert found["D_kwargs"]["block_kwargs"]["freeze_layers"] == 10
