"""Quality that others published for a model, to stand beside what is measured."""

from dataclasses import dataclass

from moembed.files.records import Positive


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """One published figure of a model.

    Attributes:
        set: the set or group, named as for `moembed evaluate`, in the version that the source measured.
        figure: name of the figure, such as nDCG@10.
        dim: width of the vectors.
        value: the figure times 100.
        prompts: prompts that it was measured with, such as "query: / passage: ".
        source: who published it, and where.
    """

    set: str
    figure: str
    dim: Positive
    value: float
    prompts: str
    source: str
