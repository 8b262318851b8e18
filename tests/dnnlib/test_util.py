"""dnnlib.util: the attribute dictionary, the logger, small helpers."""
import copy
import ctypes
import io
import pickle
import sys
import threading

import numpy as np
import pytest

import dnnlib
from dnnlib import errors, util


def test_package_offers_what_scripts_use():
    assert dnnlib.EasyDict is util.EasyDict
    assert dnnlib.make_cache_dir_path is util.make_cache_dir_path
    assert dnnlib.util.open_url is util.open_url
    assert issubclass(errors.FileError, errors.UserError)
    assert issubclass(errors.UrlError, (errors.UserError, OSError))


def test_easy_dict_attributes_are_items():
    d = util.EasyDict(a=1, nested={"b": 2})
    d.c = 3
    d["x"] = 4
    assert (d.a, d["c"], d.x) == (1, 3, 4)
    assert type(d.nested) is dict
    del d.a
    assert "a" not in d
    assert repr(d) == repr({"nested": {"b": 2}, "c": 3, "x": 4})


def test_easy_dict_missing_item():
    d = util.EasyDict()
    with pytest.raises(AttributeError, match="EasyDict has no item 'left'"):
        _ = d.left
    with pytest.raises(AttributeError, match="has no item 'left'"):
        del d.left
    assert getattr(d, "left", 5) == 5


def test_easy_dict_survives_pickle_and_copy():
    d = util.EasyDict(a=util.EasyDict(b=1))
    for twin in (pickle.loads(pickle.dumps(d)), copy.deepcopy(d), copy.copy(d)):
        assert type(twin) is util.EasyDict
        assert twin == d
        assert twin.a.b == 1
    assert b"dnnlib.util" in pickle.dumps(d)


@pytest.mark.parametrize(
    ("seconds", "text", "brief"),
    [
        (0, "0s", "0s"),
        (11.6, "12s", "12s"),
        (59.6, "1m 00s", "1m 00s"),
        (303, "5m 03s", "5m 03s"),
        (7503, "2h 05m 03s", "2h 05m"),
        (93780, "1d 02h 03m", "1d 02h"),
    ],
)
def test_format_time(seconds, text, brief):
    assert util.format_time(seconds) == text
    assert util.format_time_brief(seconds) == brief


def test_logger_tees_and_gives_the_streams_back(tmp_path, capsys):
    before = sys.stdout, sys.stderr
    with util.Logger(tmp_path / "log.txt") as logger:
        assert sys.stdout is logger
        assert sys.stderr is logger
        sys.stdout.write("one\n")
        sys.stderr.write("two\n")
        logger.write(b"three\n")
        logger.write("")
        assert (tmp_path / "log.txt").read_text() == "one\ntwo\nthree\n"  # flushed already
        assert not logger.isatty()
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
    logger.close()  # twice does no harm


def test_logger_appends_without_a_file_and_leaves_other_streams(tmp_path, monkeypatch):
    (tmp_path / "log.txt").write_text("old\n")
    with util.Logger(str(tmp_path / "log.txt"), file_mode="a", should_flush=False) as logger:
        logger.write("new\n")
    assert (tmp_path / "log.txt").read_text() == "old\nnew\n"

    console = io.StringIO()
    monkeypatch.setattr(sys, "stdout", console)
    logger = util.Logger()
    other = io.StringIO()
    monkeypatch.setattr(sys, "stderr", other)
    logger.write("text")
    logger.close()
    assert console.getvalue() == "text"
    assert sys.stdout is console
    assert sys.stderr is other


def test_ask_yes_no_asks_again(monkeypatch):
    replies = iter(["perhaps", " Yes ", "n"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(replies))
    assert util.ask_yes_no("Go on?") is True
    assert util.ask_yes_no("Go on?") is False


def test_tuple_product():
    assert util.tuple_product((2, 3, 4)) == 24
    assert util.tuple_product(()) == 1


@pytest.mark.parametrize(
    ("name", "ctype"),
    [("uint8", ctypes.c_uint8), ("float32", ctypes.c_float), (np.int64, ctypes.c_int64), ("float64", ctypes.c_double)],
)
def test_get_dtype_and_ctype(name, ctype):
    dtype, result = util.get_dtype_and_ctype(name)
    assert dtype == np.dtype(name)
    assert result is ctype


@pytest.mark.parametrize("name", ["float16", "no_such_type"])
def test_get_dtype_and_ctype_without_counterpart(name):
    with pytest.raises(ValueError, match=f"'{name}' is no number type that NumPy and C share"):
        util.get_dtype_and_ctype(name)


def test_is_pickleable():
    assert util.is_pickleable({"a": [1, 2]})
    assert not util.is_pickleable(lambda: None)
    assert not util.is_pickleable(threading.Lock())


def test_list_and_copy_files(tmp_path):
    source = tmp_path / "src"
    for name in ("a.py", "a.pyc", "sub/b.py", "__pycache__/c.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    pairs = util.list_dir_recursively_with_ignore(str(source), ignores=["*.pyc", "__pycache__"])
    assert sorted(relative for _, relative in pairs) == ["a.py", "sub/b.py"]
    based = util.list_dir_recursively_with_ignore(str(source), add_base_to_relative=True)
    assert sorted(relative for _, relative in based)[-1] == "src/sub/b.py"

    util.copy_files_and_create_dirs([(path, str(tmp_path / "dst" / relative)) for path, relative in pairs])
    assert (tmp_path / "dst/sub/b.py").read_text() == "sub/b.py"
