"""Running a bundle's graph with ONNX Runtime: sessions, kernels, batches, processors and processes."""
