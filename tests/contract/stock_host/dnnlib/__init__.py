"""Stand-in for another code base that reads our pickles: as little of it as the format needs."""
from . import util
from .util import EasyDict

__all__ = ["EasyDict", "util"]
