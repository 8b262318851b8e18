"""What can be exported, and what is refused, before any format comes in; torch programs."""
from pathlib import Path

import pytest
import torch

from dnnlib.errors import UserError
from tests import tiny, tiny_biggan
from training.export import torch_program
from training.export.programs import MappingProgram, Program, StyleProgram, generator_program, trace


def test_mapping_and_synthesis_make_the_image() -> None:
    G = tiny.tiny_generator(c_dim=3)
    z, c = tiny.latents(2, c_dim=3)
    program = generator_program(G)
    assert isinstance(program, StyleProgram)
    ws = MappingProgram(G)(z, c, torch.tensor(0.3))
    torch.testing.assert_close(ws, G.mapping(z, c, truncation_psi=0.3))
    torch.testing.assert_close(program(z, c, torch.tensor(0.3)), G(z, c, truncation_psi=0.3, noise_mode="const"))
    torch.testing.assert_close(program.synthesis(ws), G.synthesis(ws, noise_mode="const"))


def test_bytes_are_those_of_image_files() -> None:
    G = tiny.tiny_generator()
    args = generator_program(G).examples(2)
    images = generator_program(G)(*args)
    pixels = generator_program(G, pixels="uint8")(*args)
    assert torch.equal(pixels, (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1))


def test_a_torch_program_runs_for_every_batch(tmp_path: Path) -> None:
    G = tiny.tiny_generator(channels=1, resolution=8)
    path = tmp_path / "net.pt2"
    assert torch_program.write(generator_program(G), path) < 1e-4
    loaded = torch.export.load(path).module()
    z, _ = tiny.latents(7)
    torch.testing.assert_close(loaded(z, torch.tensor(0.5)), G(z, None, truncation_psi=0.5, noise_mode="const"))


def test_a_torch_program_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, other = (generator_program(tiny.tiny_generator(resolution=4, seed=seed)) for seed in (0, 1))
    monkeypatch.setattr(torch_program, "trace", lambda _: trace(other))
    with pytest.raises(UserError, match=r"found a difference of .*; nothing was written"):
        torch_program.write(program, tmp_path / "net.pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused() -> None:
    class Branching(Program):
        inputs = generator_program(tiny.tiny_generator()).inputs

        def forward(self, *args: torch.Tensor) -> torch.Tensor:
            return args[0] if args[0].sum() > 0 else -args[0]

    with pytest.raises(UserError, match=r"^network: this network cannot be exported: \w+"):
        trace(Branching())


@pytest.mark.parametrize(("kwargs", "message"), [
    ({"source": "w"}, "input: only style-based generators have w, this is a BigGANGenerator; use `input=z`"),
    ({"noise": "random"}, "noise: a BigGANGenerator of this kind has no noise; use `noise=const`"),
    ({"source": "x"}, "input: expected z or w, found 'x'"),
    ({"noise": "some"}, "noise: expected const, none or random, found 'some'"),
    ({"pixels": "int"}, "pixels: expected float or uint8, found 'int'"),
])
def test_bad_choices(kwargs: dict[str, str], message: str) -> None:
    with pytest.raises(UserError) as error:
        generator_program(tiny_biggan.tiny_generator(), **kwargs)
    assert str(error.value) == message


def test_only_generators() -> None:
    with pytest.raises(UserError, match="network: expected a generator, found a Discriminator"):
        generator_program(tiny.tiny_discriminator())
    G = tiny.tiny_generator()
    del G.mapping.w_avg
    with pytest.raises(UserError, match="network: this network keeps no average w"):
        generator_program(G)
