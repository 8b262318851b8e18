"""Low-level image operations, one file per op."""
