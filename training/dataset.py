"""The image data set, under the name by which network pickles and run directories refer to it."""
from .data.dataset import Dataset, ImageFolderDataset

__all__ = ["Dataset", "ImageFolderDataset"]
