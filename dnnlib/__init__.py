"""Helpers without torch: attribute dicts, lookup by name, downloads, safe writing of files, progress, command lines."""
from dnnlib import util
from dnnlib.util import EasyDict, make_cache_dir_path

__all__ = ["EasyDict", "make_cache_dir_path", "util"]
