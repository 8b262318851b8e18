"""Network pickles without executing them: reading into plain records, and writing.

Reading never imports or calls anything a file names. Which of our classes a record becomes is decided elsewhere.
"""
from .errors import CheckpointError, describe
from .reading import MALFORMED, file_name, read, read_trusted
from .records import ModuleRecord, TFNetworkRecord
from .torch_files import Inert, read_torch_file
from .writing import write_pickle

__all__ = [
    "MALFORMED",
    "CheckpointError",
    "Inert",
    "ModuleRecord",
    "TFNetworkRecord",
    "describe",
    "file_name",
    "read",
    "read_torch_file",
    "read_trusted",
    "write_pickle",
]
