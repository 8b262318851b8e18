"""EasyDict, Logger and small helpers, and the names of `objects` and `urls` that other code expects here."""
import fnmatch
import io
import math
import os
import pickle
import shutil
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import IO, Any

from dnnlib.objects import (
    call_func_by_name,
    construct_class_by_name,
    get_module_dir_by_obj_name,
    get_module_from_obj_name,
    get_obj_by_name,
    get_obj_from_module,
    get_top_level_function_name,
    is_top_level_function,
)
from dnnlib.urls import is_url, make_cache_dir_path, open_url, set_cache_dir

__all__ = [
    "EasyDict",
    "Logger",
    "ask_yes_no",
    "call_func_by_name",
    "construct_class_by_name",
    "copy_files_and_create_dirs",
    "format_time",
    "format_time_brief",
    "get_dtype_and_ctype",
    "get_module_dir_by_obj_name",
    "get_module_from_obj_name",
    "get_obj_by_name",
    "get_obj_from_module",
    "get_top_level_function_name",
    "is_pickleable",
    "is_top_level_function",
    "is_url",
    "list_dir_recursively_with_ignore",
    "make_cache_dir_path",
    "open_url",
    "set_cache_dir",
    "tuple_product",
]


class EasyDict(dict):
    """A dict whose items are also attributes: `d.x` is `d["x"]`.

    Nested dicts stay what they are. Network pickles name this class, so it must stay `dnnlib.util.EasyDict`.
    """

    def __getattr__(self, key: str) -> Any:
        if key in self:
            return self[key]
        raise AttributeError(f"{type(self).__name__} has no item {key!r}")

    def __setattr__(self, key: str, item: object) -> None:
        self[key] = item

    def __delattr__(self, key: str) -> None:
        if key not in self:
            raise AttributeError(f"{type(self).__name__} has no item {key!r}")
        del self[key]


class Logger:
    """Sends everything written to stdout and stderr to the console and optionally to a file.

    Takes the place of `sys.stdout` and `sys.stderr` from construction until `close()`.

    Args:
        file_name: copy of the output; None only replaces the streams.
        file_mode: mode the file is opened with ('w' or 'a').
        should_flush: flush after each write, so that nothing is lost if the process is killed.
    """

    def __init__(
        self, file_name: str | os.PathLike[str] | None = None, file_mode: str = "w", should_flush: bool = True
    ):
        self.file: IO[str] | None = open(file_name, file_mode, encoding="utf-8") if file_name is not None else None
        self.should_flush = should_flush
        self.console = sys.stdout  # Progress draws its bar here, so that it stays out of the file
        self._replaced = {name: getattr(sys, name) for name in ("stdout", "stderr")}
        for name in self._replaced:
            setattr(sys, name, self)

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def write(self, text: str | bytes) -> int:
        """Writes to the console and the file; bytes are taken as UTF-8."""
        shown = text if isinstance(text, str) else str(text, "utf-8", "replace")
        for out in self._outputs() if shown else ():
            out.write(shown)
        if shown and self.should_flush:
            self.flush()
        return len(shown)

    def flush(self) -> None:
        """Flushes the console and the file."""
        for out in self._outputs():
            out.flush()

    def isatty(self) -> bool:
        """Never: what is written here may also go into a file."""
        return False

    def close(self) -> None:
        """Gives stdout and stderr back (unless they were replaced meanwhile) and closes the file."""
        self.flush()
        for name, stream in self._replaced.items():
            if getattr(sys, name) is self:
                setattr(sys, name, stream)
        file, self.file = self.file, None
        if file is not None:
            file.close()

    def _outputs(self) -> list[IO[str]]:
        return [self.console] if self.file is None else [self.file, self.console]


def _clock(seconds: float) -> tuple[int, int, int, int]:
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return *divmod(hours, 24), minutes, secs


def format_time(seconds: float) -> str:
    """A duration as "12s", "5m 03s", "2h 05m 03s" or "1d 02h 03m", rounded to whole seconds."""
    days, hours, minutes, secs = _clock(seconds)
    if days:
        return f"{days}d {hours:02d}h {minutes:02d}m"
    if hours:
        return f"{hours}h {minutes:02d}m {secs:02d}s"
    return f"{minutes}m {secs:02d}s" if minutes else f"{secs}s"


def format_time_brief(seconds: float) -> str:
    """A duration in at most two units: "12s", "5m 03s", "2h 05m", "1d 02h"."""
    return " ".join(format_time(seconds).split()[:2])


def ask_yes_no(question: str) -> bool:
    """Asks on the terminal until the answer is a yes or a no."""
    answers = {"y": True, "yes": True, "1": True, "true": True, "n": False, "no": False, "0": False, "false": False}
    while (reply := input(f"{question} [y/n] ").strip().lower()) not in answers:
        pass
    return answers[reply]


def tuple_product(values: Iterable[int]) -> int:
    """The product of all elements; 1 for an empty tuple."""
    return math.prod(values)


def get_dtype_and_ctype(type_obj: Any) -> tuple[Any, Any]:
    """The NumPy dtype and the ctypes type of a type given by name, class or dtype, for example "uint8" or np.float32.

    Raises:
        ValueError: there is no such type, or C has no counterpart (float16).
    """
    import numpy as np

    try:
        dtype = np.dtype(type_obj)
        ctype = np.ctypeslib.as_ctypes_type(dtype)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(f"{type_obj!r} is no number type that NumPy and C share") from error
    return dtype, ctype


def is_pickleable(obj: object) -> bool:
    """Whether pickle can write the object."""
    try:
        pickle.dump(obj, io.BytesIO())
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError):
        return False
    return True


def list_dir_recursively_with_ignore(
    dir_path: str, ignores: Sequence[str] | None = None, add_base_to_relative: bool = False
) -> list[tuple[str, str]]:
    """All files below a folder as (path, path relative to the folder).

    Args:
        dir_path: the folder; must exist.
        ignores: fnmatch patterns; a file or folder whose own name matches one is left out.
        add_base_to_relative: begin the relative paths with the folder's own name.
    """
    assert os.path.isdir(dir_path), dir_path
    patterns = list(ignores or [])
    base = os.path.basename(os.path.normpath(dir_path)) if add_base_to_relative else ""

    def wanted(name: str) -> bool:
        return not any(fnmatch.fnmatch(name, pattern) for pattern in patterns)

    pairs = []
    for folder, subfolders, names in os.walk(dir_path):
        subfolders[:] = filter(wanted, subfolders)  # os.walk descends into what is left here
        for path in (os.path.join(folder, name) for name in names if wanted(name)):
            pairs.append((path, os.path.join(base, os.path.relpath(path, dir_path))))
    return pairs


def copy_files_and_create_dirs(files: Iterable[tuple[str, str]]) -> None:
    """Copies (source, destination) pairs, making the destination folders that are missing."""
    for source, destination in files:
        os.makedirs(os.path.dirname(destination) or ".", exist_ok=True)
        shutil.copyfile(source, destination)
