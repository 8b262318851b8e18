"""One report about this project on one GPU: `python -m benchmarks.gpu_report` (`make gpu-report`)."""
