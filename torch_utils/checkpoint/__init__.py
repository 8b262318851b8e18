"""Network pickles without executing them: reading into plain records, and writing.

Reading never imports or calls anything a file names. Which of our classes a record becomes is decided elsewhere.
"""
from .errors import MALFORMED, CheckpointError, describe
from .reading import file_name, read, read_trusted, refusal
from .records import Foreign, ModuleRecord, TFNetworkRecord, foreign_name
from .torch_files import Inert, read_torch_file
from .writing import write_pickle

__all__ = [
    "MALFORMED",
    "CheckpointError",
    "Foreign",
    "Inert",
    "ModuleRecord",
    "TFNetworkRecord",
    "describe",
    "file_name",
    "foreign_name",
    "read",
    "read_torch_file",
    "read_trusted",
    "refusal",
    "write_pickle",
]
