"""Network pickles without executing them: reading into plain records, and writing.

Reading never imports or calls anything a file names. Which of our classes a record becomes is decided elsewhere.
"""
from .reading import read, read_trusted
from .records import CheckpointError, ModuleRecord, TFNetworkRecord
from .writing import write_pickle

__all__ = ["CheckpointError", "ModuleRecord", "TFNetworkRecord", "read", "read_trusted", "write_pickle"]
