"""The experiments of benchmarks/compress_fmnist.py: their table, how they are run, what is shown of them."""
