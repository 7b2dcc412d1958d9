"""Evaluation of a model at several widths and precisions on retrieval, semantic similarity and bitext mining."""
