"""Reading with trust: what the file asks for is executed, and what goes wrong in it is one line."""
from pathlib import Path

import pytest

from tests.torch_utils.checkpoint import streams as s
from tests.torch_utils.checkpoint.hostile import NamedFile
from torch_utils import checkpoint
from torch_utils.checkpoint import CheckpointError


def test_trusted_reading_does_execute_it(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    source = f"open({str(marker)!r}, 'w').close()\nclass Thing: pass\n"
    thing = checkpoint.read_trusted(NamedFile(s.stream(s.persistent(class_name="Thing", module_src=source))))
    assert type(thing).__name__ == "Thing"
    assert marker.exists()


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("def", "SyntaxError"),
        ("raise SystemError('no')", "SystemError: no"),
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("x = 1", "AttributeError: .*'Thing'"),
    ],
)
def test_trusted_text_that_fails_is_one_line(source: str, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        checkpoint.read_trusted(NamedFile(s.stream(s.persistent(class_name="Thing", module_src=source))))
    assert str(caught.value).startswith("evil.pkl: ")
    assert str(caught.value).isprintable()


def test_trusted_reading_of_what_is_no_pickle() -> None:
    with pytest.raises(CheckpointError, match=r"evil\.pkl: not a network pickle but a PNG image"):
        checkpoint.read_trusted(NamedFile(b"\x89PNG\r\n\x1a\n"))
