"""Lookup of functions and classes by dotted name."""
import os
import sys
from fractions import Fraction

import numpy as np
import pytest

import dnnlib
from dnnlib import util


def test_longest_module_wins():
    module, rest = util.get_module_from_obj_name("os.path.join")
    assert module is os.path
    assert rest == "join"
    module, rest = util.get_module_from_obj_name("dnnlib.util.EasyDict.keys")
    assert module is dnnlib.util
    assert rest == "EasyDict.keys"


def test_lookup_and_aliases():
    assert util.get_obj_by_name("dnnlib.util.EasyDict") is dnnlib.EasyDict
    assert util.get_obj_by_name("np.random.RandomState") is np.random.RandomState
    assert util.get_obj_from_module(os, "path.join") is os.path.join
    assert util.get_obj_from_module(os, "") is os


@pytest.mark.parametrize("name", ["no_such_module.thing", "os.path.no_such_function", "os", "nodots"])
def test_unknown_name(name):
    with pytest.raises(ImportError, match=rf"there is no object called '{name}'"):
        util.get_obj_by_name(name)


def test_error_inside_a_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_module_a.py").write_text("import module_that_does_not_exist\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="module_that_does_not_exist"):
        util.get_obj_by_name("broken_module_a.Thing")


def test_call_and_construct():
    assert util.call_func_by_name(7, 2, func_name="builtins.divmod") == (3, 1)
    assert util.construct_class_by_name(class_name="fractions.Fraction", numerator=1, denominator=3) == Fraction(1, 3)
    with pytest.raises(TypeError, match=r"sys\.version is not callable but a str"):
        util.call_func_by_name(func_name="sys.version")


def test_module_dir():
    assert util.get_module_dir_by_obj_name("dnnlib.util.EasyDict") == os.path.dirname(os.path.abspath(util.__file__))
    with pytest.raises(ImportError, match="the module builtins has no source file"):
        util.get_module_dir_by_obj_name("builtins.print")


def test_top_level_functions(monkeypatch):
    def inner():
        pass

    assert util.is_top_level_function(util.format_time)
    assert not util.is_top_level_function(inner)
    assert not util.is_top_level_function(3)
    assert util.get_top_level_function_name(util.format_time) == "dnnlib.util.format_time"
    with pytest.raises(ValueError, match="is not a top-level function"):
        util.get_top_level_function_name(inner)


def test_top_level_function_of_a_script(monkeypatch):
    main = sys.modules["__main__"]
    monkeypatch.setattr(inner_of_script := (lambda: None), "__module__", "__main__", raising=False)
    monkeypatch.setattr(main, "script_function", inner_of_script, raising=False)
    inner_of_script.__name__ = "script_function"
    monkeypatch.setattr(main, "__file__", "/some/where/script.py", raising=False)
    assert util.get_top_level_function_name(inner_of_script) == "script.script_function"
