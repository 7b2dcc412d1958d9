"""Quantization of a traced model by the role of each tensor, not by the type of its consumer."""
