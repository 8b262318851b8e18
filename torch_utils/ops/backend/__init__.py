"""CUDA kernels of the operations: choosing, building, loading, launching."""
