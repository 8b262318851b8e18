"""Generators as files for other programs: ONNX, torch programs, folders for a model hub, web pages."""
