"""Pooling: how the states of a text's tokens become one vector, and its names in sentence-transformers' files."""

from enum import StrEnum


class Pooling(StrEnum):
    """Way to pool; the value is its word in `pooling_mode`."""

    MEAN = "mean"
    FIRST = "cls"

    @property
    def flag(self) -> str:
        """Name of its flag in `1_Pooling/config.json`."""
        return {Pooling.MEAN: "pooling_mode_mean_tokens", Pooling.FIRST: "pooling_mode_cls_token"}[self]

    @property
    def described(self) -> str:
        """What it takes, in words."""
        return {Pooling.MEAN: "the mean of all tokens", Pooling.FIRST: "the state of the first token"}[self]
