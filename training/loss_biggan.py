"""The hinge loss under the name that training_options.json has for it."""
from .biggan.loss import HingeLoss

__all__ = ["HingeLoss"]
