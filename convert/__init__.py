"""Conversion of checkpoints to INT8 bundles without torch."""
