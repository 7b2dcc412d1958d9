"""Published examples of a known model: numbers that others computed from its weights. They stand in `specs/*.toml`.

Each kind of example gives the expected value of one output. All texts are those of the source, with the token ids that the
published tokenizer gives them. The outputs are those of a network without a projection.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from moembed.files.records import Count, Positive, Rule

_Positive = Annotated[float, Rule(lambda value: value > 0, "a number above 0")]


Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, kw_only=True)
class ExampleText:
    """Text of an example.

    Attributes:
        text: the text without its prompt.
        ids: token ids of prompt and text, special tokens included.
        prompt: name of the prompt; empty for none.
    """

    text: str
    ids: tuple[Count, ...]
    prompt: str = ""


@dataclass(frozen=True, kw_only=True)
class Example:
    """Fields of every kind of example.

    Attributes:
        name: name of the example, unique within a spec.
        source: who published the numbers, and the arithmetic that computed them.
        tolerance: largest absolute difference of a number that printed digits and arithmetic of the source allow, and float32.
        margin: largest difference between the probabilities of the last expert chosen and the first not chosen that these
            allow to be decided the other way: a near tie.
        unresolved: why other numbers prove no fault; empty for most. Such an example is run and shown, and not judged.
    """

    name: str
    source: str
    tolerance: _Positive
    margin: _Positive
    unresolved: str = ""

    @property
    def texts(self) -> "tuple[ExampleText, ...]":
        """Texts that the expected values are about."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class SimilarityExample(Example):
    """Cosine of the embeddings of two texts."""

    first: ExampleText
    second: ExampleText
    cosine: Annotated[float, Rule(lambda value: -1 <= value <= 1, "a number from -1 to 1")]

    @property
    def texts(self) -> tuple[ExampleText, ...]:
        """The two texts."""
        return self.first, self.second


@dataclass(frozen=True, kw_only=True)
class PooledExample(Example):
    """Pooled last hidden states of a text, before normalization.

    Attributes:
        text: the text.
        pooling: `mean` of all tokens, or `cls`, the state of the first one.
        every: distance between the components that are compared; the first one is component 0, the last one may come before the
            end of the vector.
        values: these components.
    """

    text: ExampleText
    pooling: Pooling = "mean"
    every: Positive
    values: tuple[float, ...]

    @property
    def texts(self) -> tuple[ExampleText, ...]:
        """The text."""
        return (self.text,)


@dataclass(frozen=True, kw_only=True)
class EmbeddingExample(Example):
    """Embedding of a text at full width, of unit length.

    Attributes:
        text: the text.
        first: the first components.
        last: the last components, or empty.
    """

    text: ExampleText
    first: tuple[float, ...]
    last: tuple[float, ...] = ()

    @property
    def texts(self) -> tuple[ExampleText, ...]:
        """The text."""
        return (self.text,)


@dataclass(frozen=True, kw_only=True)
class HiddenStatesExample(Example):
    """Last hidden states of some tokens of a text.

    Attributes:
        text: the text.
        tokens: positions of the tokens; -1 is the last one.
        first: of each token the first components, from `skipped` on.
        last: of each token the last components, or empty.
        skipped: index of the first component in `first`.
    """

    text: ExampleText
    tokens: tuple[int, ...]
    first: tuple[tuple[float, ...], ...]
    last: tuple[tuple[float, ...], ...] = ()
    skipped: Count = 0

    @property
    def texts(self) -> tuple[ExampleText, ...]:
        """The text."""
        return (self.text,)


@dataclass(frozen=True, kw_only=True)
class RoutingExample(Example):
    """Decision of the router of one layer for every token of a text.

    Attributes:
        text: the text.
        layer: the MoE layer.
        expert_indices: of each rank the expert of every token; rank 0 is the most probable.
        weights: of each rank the weight of every token.
    """

    text: ExampleText
    layer: Count
    expert_indices: tuple[tuple[Count, ...], ...]
    weights: tuple[tuple[float, ...], ...]

    @property
    def texts(self) -> tuple[ExampleText, ...]:
        """The text."""
        return (self.text,)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """All published examples of a model."""

    similarity: tuple[SimilarityExample, ...] = ()
    pooled: tuple[PooledExample, ...] = ()
    embeddings: tuple[EmbeddingExample, ...] = ()
    hidden_states: tuple[HiddenStatesExample, ...] = ()
    routing: tuple[RoutingExample, ...] = ()

    @property
    def all(self) -> tuple[Example, ...]:
        """Every example, of each kind."""
        return (*self.similarity, *self.pooled, *self.embeddings, *self.hidden_states, *self.routing)

    @property
    def ids(self) -> list[list[int]]:
        """Token ids of every text, each once."""
        return [list(ids) for ids in dict.fromkeys(text.ids for example in self.all for text in example.texts)]
