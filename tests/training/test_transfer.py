"""Transfer learning: what is copied from a pickle, what is said about it, and the names of the published sources."""
import pytest
import torch
from click.testing import CliRunner

import legacy
from dnnlib.errors import UserError
from tests import tiny, tiny_biggan
from tests.training import tiny_runs
from tests.training.test_networks_stylegan3 import tiny as stylegan3
from torch_utils.ops import upfirdn2d
from training import options as config
from training.checkpoints import pickles, resizing
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
        "  partial: mapping.fc0.weight [16, 32] from [16, 16]", "  new: mapping.embed.weight [16, 3]",
        "  new: mapping.embed.bias [16]"
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
    assert report.left_out == ["mapping.embed.weight", "mapping.embed.bias"]
    z, c = tiny.latents(3, c_dim=3)
    first = [source.mapping.fc0.bias.clone(), target.mapping.fc0.bias]
    assert not torch.equal(*first)  # what the labels add on average
    source.mapping.fc0.weight[:, 16:] = 0
    transplant(source, target)
    assert torch.allclose(target.mapping(z, None), source.mapping(z, c), atol=SAME_IMAGES)


def test_a_discriminator_that_gains_labels_says_the_same_of_every_class():
    source, target = tiny.tiny_discriminator(seed=1), tiny.tiny_discriminator(c_dim=3, seed=2)
    report = transplant(source, target)
    assert report.partial == ["b4.out.weight", "b4.out.bias"]
    assert report.new
    assert all(name.startswith("mapping.") for name in report.new)
    c = torch.eye(3)[torch.tensor([0, 1, 2, 1])]
    before = source(tiny.images(), None)
    assert torch.allclose(target(tiny.images(), c), before, atol=SAME_IMAGES * before.abs().max())


def test_a_discriminator_that_loses_labels_says_the_mean_over_classes():
    source, target = tiny.tiny_discriminator(c_dim=3, seed=1), tiny.tiny_discriminator(seed=2)
    transplant(source, target)
    each = [source(tiny.images(), torch.eye(3)[[k] * 4]) for k in range(3)]
    assert torch.allclose(target(tiny.images(), None), torch.stack(each).mean(dim=0), atol=SAME_IMAGES)


def test_what_both_tensors_have_is_copied_and_gained_inputs_are_zero():
    source = torch.nn.ParameterDict({"a": torch.ones(2, 3), "b": torch.ones(2)})
    target = torch.nn.ParameterDict({"a": torch.full([3, 4], 5.0), "b": torch.zeros(2, 1)}).requires_grad_(False)
    report = transplant(source, target)
    assert (report.partial, report.new) == (["a"], ["b"])
    gain = (4 / 3) ** 0.5
    assert torch.allclose(target["a"], torch.tensor([[gain] * 3 + [0]] * 2 + [[5] * 4]))


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
def test_channels_that_are_gained_do_not_change_the_images(architecture):
    source = tiny.tiny_generator(architecture, seed=1, layer_channels=[9, 8, 7, 6, 5, 4])
    target = tiny.tiny_generator(architecture, seed=2)
    assert not transplant(source, target).new
    z, _ = tiny.latents(3)
    before = source(z, None, noise_mode="const")
    assert torch.allclose(target(z, None, noise_mode="const"), before, atol=2e-5 * before.abs().max())


def test_a_grown_generator_makes_its_old_images_in_the_new_size():
    source, target = tiny.tiny_generator(seed=1), tiny.tiny_generator(resolution=32, seed=2)
    report = transplant(source, target)
    assert not report.partial
    assert not report.left_out
    assert report.new
    assert all(name.startswith("synthesis.b32.") for name in report.new)
    assert "  new: synthesis.b32.torgb.weight [3, 4, 1, 1], zero" in report.lines("G")
    z, _ = tiny.latents(3)
    before = source(z, None, noise_mode="const")
    expected = upfirdn2d.upsample2d(before, upfirdn2d.setup_filter([1, 3, 3, 1]))
    after = target(z, None, noise_mode="const")
    assert torch.allclose(after, expected, atol=SAME_IMAGES * before.abs().max())
    target.synthesis.b32.torgb.weight.requires_grad_(True)
    target(z, None, noise_mode="const").square().sum().backward()
    assert target.synthesis.b32.torgb.weight.grad.abs().max() > 0  # and learns to add details


def test_a_generator_without_sums_keeps_new_layers_random():
    target = tiny.tiny_generator("resnet", resolution=32, seed=2)
    before = target.synthesis.b32.torgb.weight.clone()
    transplant(tiny.tiny_generator("resnet", seed=1), target)
    assert torch.equal(target.synthesis.b32.torgb.weight, before)


def test_a_shrunk_generator_makes_the_lower_resolution_of_its_images():
    source, target = tiny.tiny_generator(resolution=32, seed=1), tiny.tiny_generator(seed=2)
    report = transplant(source, target)
    assert (report.partial, report.new) == ([], [])
    assert all(name.startswith("synthesis.b32.") for name in report.left_out)
    z, _ = tiny.latents(3)
    noted = []
    source.synthesis.b16.register_forward_hook(lambda block, inputs, output: noted.append(output[1]))
    source(z, None, noise_mode="const")
    assert torch.allclose(target(z, None, noise_mode="const"), noted[0], atol=SAME_IMAGES)


@pytest.mark.parametrize("resolutions", [(16, 32), (32, 16)])
def test_blocks_of_a_discriminator_are_aligned_by_resolution(resolutions):
    source, target = (tiny.tiny_discriminator(resolution=side, seed=side) for side in resolutions)
    report = transplant(source, target)
    for name in ("b8.conv0.weight", "b4.fc.weight"):
        assert torch.equal(target.get_parameter(name), source.get_parameter(name))
    top = f"b{max(resolutions)}."
    assert all(name.startswith(top) or ".fromrgb." in name for name in (*report.new, *report.left_out))


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3)])
@pytest.mark.parametrize("architecture", ["skip", "resnet"])
def test_grey_and_colour(before, after, architecture):
    source, target = (tiny.tiny_generator(architecture, channels=num, seed=num) for num in (before, after))
    report = transplant(source, target)
    assert report.partial
    assert all(".torgb." in name for name in report.partial)
    z, _ = tiny.latents(3)
    images = [net(z, None, noise_mode="const") for net in (source, target)]
    grey = [img.mean(dim=1, keepdim=True) for img in images]
    assert torch.allclose(*grey, atol=SAME_IMAGES * grey[0].abs().max())
    assert after == 1 or torch.allclose(images[1][:, :1], images[1][:, 1:2])
    source, target = (tiny.tiny_discriminator(architecture, channels=num, seed=num) for num in (before, after))
    assert all(".fromrgb." in name for name in transplant(source, target).partial)
    img = tiny.images(channels=1).repeat(1, 3, 1, 1)
    logits = [net(img[:, :num], None) for net, num in ((source, before), (target, after))]
    assert torch.allclose(*logits, atol=SAME_IMAGES * logits[0].abs().max())


def test_other_numbers_of_channels_share_the_first():
    source, target = tiny.tiny_generator(channels=3, seed=1), tiny.tiny_generator(channels=4, seed=2)
    transplant(source, target)
    z, _ = tiny.latents(3)
    images = [net(z, None, noise_mode="const")[:, :3] for net in (source, target)]
    assert torch.allclose(*images, atol=SAME_IMAGES)


FEW = {"num_layers": 4, "margin_size": 2}


@pytest.mark.parametrize("side", [16, 64])
def test_stylegan3_is_aligned_by_layer(side):
    source = stylegan3(seed=1, channel_max=6, **FEW)
    target = stylegan3(seed=2, img_resolution=side, channel_max=8, **FEW)
    filters = {name: buffer.clone() for name, buffer in target.named_buffers() if name.endswith("filter")}
    report = transplant(source, target)
    assert (report.new, report.left_out) == ([], [])
    assert all(torch.equal(buffer, filters[name]) for name, buffer in target.named_buffers() if name in filters)
    layers = [[net.synthesis.get_submodule(net.synthesis.layer_names[i]) for net in (source, target)] for i in (3, -1)]
    for old, new in layers:
        rows, columns = (min(sizes) for sizes in zip(old.weight.shape[:2], new.weight.shape[:2]))
        gain = (new.weight.shape[1] / old.weight.shape[1]) ** 0.5
        assert torch.allclose(new.weight[:rows, :columns], old.weight[:rows, :columns] * gain)
        assert torch.equal(new.magnitude_ema, old.magnitude_ema)
    assert target(torch.ones([1, 8]), None).shape[2] == side


def test_stylegan3_that_gains_channels_makes_the_images_it_made():
    source, target = stylegan3(seed=1, channel_max=6, **FEW), stylegan3(seed=2, channel_max=8, c_dim=2, **FEW)
    transplant(source, target)
    z, c = torch.randn([2, 8], generator=torch.Generator().manual_seed(0)), torch.eye(2)
    before = source(z, None)
    assert torch.allclose(target(z, c), before, atol=2e-5 * before.abs().max())


def test_biggan_of_other_images_is_refused():
    with pytest.raises(UserError, match="resume: img_channels is 3 in the pickle, but 1 in the data set, and a BigG"):
        transplant(tiny_biggan.tiny_generator(), tiny_biggan.tiny_generator(img_channels=1))


def test_a_run_starts_from_a_pickle_of_other_images_and_trains(tmp_path, capsys):
    data = tiny.write_data(tmp_path / "data", num_classes=3, channels=1)
    path = tiny.write_teacher(tmp_path / "source.pkl", resolution=32, seed=3)
    result = tiny_runs.options(data, *tiny_runs.STYLEGAN2, "--cond=true", "--aug=noaug", f"--resume={path}")
    capsys.readouterr()
    folder = tiny_runs.run(tmp_path / "run", result, total_kimg=0.004)
    output = capsys.readouterr().out
    assert "  partial: synthesis.b16.torgb.weight [1, 8, 1, 1] from [3, 8, 1, 1]\n" in output
    assert "  left out: synthesis.b32.torgb.weight [3, 4, 1, 1]\n" in output
    nets = pickles.open_networks(str(folder / "network-snapshot-000000.pkl"))
    assert (nets["G"].img_resolution, nets["G"].img_channels, nets["D"].c_dim) == (16, 1, 3)


def test_a_file_with_one_generator_alone_is_a_start(tmp_path):
    path = tmp_path / "source.pkl"
    pickles.save_networks({"G_ema": pickles.snapshot_data(tiny.tiny_networks(seed=3), None)["G_ema"]}, path)
    networks = {name: tiny.tiny_networks()[name] for name in pickles.NETWORKS}
    before = networks["D"].b4.out.weight.clone()
    lines = from_pickle(networks, str(path))
    assert lines[1] == "G: starts from G_ema, the only generator in the file"
    assert lines[3].startswith(f"D: as it was initialised ({path}: the pickle holds no D")
    assert torch.equal(networks["D"].b4.out.weight, before)
    assert torch.equal(networks["G"].synthesis.b4.const, networks["G_ema"].synthesis.b4.const)


def test_surgery_alone(tmp_path):
    path = tiny.write_teacher(tmp_path / "source.pkl", seed=3)
    grown = tmp_path / "grown.pkl"
    result = CliRunner().invoke(legacy.main, [f"--source={path}", f"--dest={grown}", "--resolution=32"])
    assert result.exit_code == 0, result.output
    assert "  new: b32.conv0.weight [4, 4, 3, 3]\n" in result.stdout
    nets = pickles.open_networks(str(grown))
    assert nets["training_set_kwargs"] == {"path": "somewhere", "resolution": 32}
    assert torch.equal(nets["G"].synthesis.b32.conv0.weight, nets["G_ema"].synthesis.b32.conv0.weight)
    args = [f"--source={grown}", f"--dest={tmp_path / 'back.pkl'}", "--resolution=16"]
    result = CliRunner().invoke(legacy.main, args)
    assert result.exit_code == 0, result.output
    first, last = (pickles.open_networks(str(name)) for name in (path, tmp_path / "back.pkl"))
    assert all(torch.equal(tensor, tensors(first["G_ema"])[name]) for name, tensor in tensors(last["G_ema"]).items())
    assert {name for name, tensor in tensors(last["D"]).items() if not torch.equal(tensor, tensors(first["D"])[name])
            } == {"b16.fromrgb.weight", "b16.fromrgb.bias"}


def test_surgery_of_students_and_stylegan3():
    widths = {"generator": [3, 4, 5, 6, 7, 8], "discriminator": [2, 3, 4, 5, 6, 7, 8]}
    nets = {"G_ema": tiny.tiny_generator(layer_channels=widths["generator"]),
            "D": tiny.tiny_discriminator(layer_channels=widths["discriminator"])}
    for side, (generator, discriminator) in {32: ([*widths["generator"], 4, 4], [1, 1, *widths["discriminator"]]),
                                             8: (widths["generator"][:4], widths["discriminator"][2:])}.items():
        made, _ = resizing.resized(nets, side)
        assert made["G_ema"].init_kwargs["synthesis_kwargs"]["layer_channels"] == generator
        assert made["D"].init_kwargs["layer_channels"] == discriminator
        assert made["D"](made["G_ema"](torch.ones([2, 16]), None), None).shape == (2, 1)
    made, lines = resizing.resized({"G_ema": stylegan3(**FEW)}, 16)
    assert made["G_ema"](torch.ones([1, 8]), None).shape[2] == 16
    assert lines[0].endswith(" 0 new")


@pytest.mark.parametrize(("network", "side", "message"), [
    (tiny.tiny_generator, 24, "resolution: expected a power of two from 4 to 16384, found 24"),
    (lambda: stylegan3(), 8, "resolution: expected a power of two from 16 to 16384 for a StyleGAN3, found 8"),
    (tiny_biggan.tiny_generator, 64, "resolution: the blocks of a BigGANGenerator differ from resolution"),
])  # fmt: skip
def test_resolutions_that_there_are_no_networks_for(network, side, message):
    with pytest.raises(UserError, match=message):
        resizing.resized({"G": network()}, side)


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
    result = tiny_runs.options(data, *tiny_runs.STYLEGAN2, "--cond=true", "--aug=ada", f"--resume={path}")
    assert result["ada_kimg"] == 100
    assert result["ema_rampup"] is None
    capsys.readouterr()
    folder = tiny_runs.run(tmp_path / "run", result, total_kimg=0.004)
    output = capsys.readouterr().out
    assert f"Starting from {path}; its optimizer state" in output
    assert "tensors copied, 1 in part, 2 new\n  partial: mapping.fc0.weight [16, 32] from [16, 16]\n" in output
    average = pickles.open_networks(str(folder / "network-snapshot-000000.pkl"))["G_ema"]
    assert average.c_dim == 3
    # After one step of a small learning rate the synthesis network is still the source's.
    source = pickles.open_networks(path)["G_ema"].synthesis.b8.conv1.weight
    assert torch.allclose(average.synthesis.b8.conv1.weight, source, atol=0.01)


def test_freezed_layers_stay_as_they_are_in_the_pickle(tmp_path):
    data = tiny.write_data(tmp_path / "data")
    path = tiny.write_teacher(tmp_path / "source.pkl", seed=3)
    result = tiny_runs.options(data, *tiny_runs.STYLEGAN2, "--aug=noaug", "--freezed=2", f"--resume={path}")
    folder = tiny_runs.run(tmp_path / "run", result, total_kimg=0.008)
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
    result = tiny_runs.options(data, *tiny_runs.STYLEGAN2, "--resume=ffhq256", "--freezed=10")
    assert result["init_kwargs"]["func_name"] == "training.transfer.from_pickle"
    assert result["init_kwargs"]["url"] == config.TRANSFER_BASE + "ffhq-res256-mirror-paper256-noaug.pkl"
    assert result["D_kwargs"]["block_kwargs"]["freeze_layers"] == 10
