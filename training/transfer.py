"""Transfer learning under the name that training_options.json has for it."""
from .checkpoints.transfer import from_pickle

__all__ = ["from_pickle"]
