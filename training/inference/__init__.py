"""Generators at work, beyond calling them."""
