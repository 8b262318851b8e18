"""Refit: the layers of a slice fitted in closed form to its teacher's features, without data and without training."""
from .registry import applies, images_of, prepared, refit_network
from .report import LayerFit, RefitOptions, Report

__all__ = ["LayerFit", "RefitOptions", "Report", "applies", "images_of", "prepared", "refit_network"]
