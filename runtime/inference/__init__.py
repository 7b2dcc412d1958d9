"""Inference with ONNX Runtime: sessions, kernels, batches, CPU features and processes."""
