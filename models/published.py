"""Quality that others published for a model, to stand beside what is measured."""

from dataclasses import dataclass

from moembed.files.records import Positive


@dataclass(frozen=True, kw_only=True)
class PublishedFigure:
    """One published figure of a model.

    Attributes:
        set: the set or group, named as for `moembed evaluate`, in the version that `moembed.evaluation` knows by its counts.
        figure: name of the figure, such as nDCG@10.
        dim: width of the vectors.
        value: the figure times 100.
        prompts: prompt that each side was measured with: of retrieval `query` and `document`, otherwise `sentence`. It is the one
            that `moembed evaluate` uses: figures with other prompts would stand beside nothing.
        source: who published it, and where.
    """

    set: str
    figure: str
    dim: Positive
    value: float
    prompts: dict[str, str]
    source: str
