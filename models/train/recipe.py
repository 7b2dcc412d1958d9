"""Recipes: every choice that makes a model, as data in `recipes/*.toml` or in a file of yours."""

import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from moembed.errors import InputError

_Section = TypeVar("_Section")


@dataclass(frozen=True, kw_only=True)
class Student:
    """The network to make; what is not said here is the teacher's.

    Attributes:
        vocabulary: pieces of the tokenizer.
        prior: see `vocabulary.choose`.
        spelling: see `vocabulary.choose`.
        speakers: languages weigh in that choice as `Data.emphasis` has it, to this power; 0 for all alike.
        experts: of every mixture.
        top_k: experts of a token.
        moe_every: layer i is a mixture iff i % moe_every == 1.
        ffn_div: an expert's inner width is the teacher's divided by this.
        rotary_base: base of the rotary frequencies.
        dims: widths that embeddings may be cut to, widest first.
    """

    vocabulary: int
    prior: float
    spelling: float
    speakers: float
    experts: int
    top_k: int
    moe_every: int
    ffn_div: int
    rotary_base: float
    dims: list[int]


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is read of the texts.

    Attributes:
        held_out: share of the texts by which choices are made.
        held_tokens: how many tokens of them.
        flatten: a language with n texts is drawn from in proportion to n ** flatten,
        emphasis: times this, where a language is named.
        pairs: by kind, see `source.Asked`, how much more often each pair of it is drawn than another.
        max_tokens: longer texts are cut.
        multiple: lengths are cut to multiples of this, so that batches are full.
    """

    held_out: float
    held_tokens: int
    flatten: float
    emphasis: dict[str, float]
    pairs: dict[str, float]
    max_tokens: int
    multiple: int


@dataclass(frozen=True, kw_only=True)
class Attend:
    """How queries and keys learn the teacher's attention.

    Attributes:
        rate: of Adam, for weights.
        bias_rate: of Adam, for biases.
        passes: over the conversion's text, for each layer.
    """

    rate: float
    bias_rate: float
    passes: int


@dataclass(frozen=True, kw_only=True)
class Convert:
    """The closed-form conversion.

    Attributes:
        tokens: of text.
        batch: tokens of a batch.
        strengths: of the regressions' penalty, to choose from on held-out text.
        mass: mean sum of a token's router weights, to choose from on held-out text.
    """

    tokens: int
    batch: int
    strengths: list[float]
    mass: list[float]


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """How the projection learns to put first what tells texts apart.

    Attributes:
        rate: of Adam.
        steps: how many.
        texts: of a step; or pairs.
        temperature: of the texts' similarities.
        neighbours: weight of these, where there are pairs.
        pairs: how many the student reads to learn from, where there are pairs.
        pair_temperature: of the similarities of queries and documents.
        margin: see `pairs.hard_negatives`.
    """

    rate: float
    steps: int
    texts: int
    temperature: float
    neighbours: float
    pairs: int
    pair_temperature: float
    margin: float


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What all gradient steps have in common.

    Attributes:
        rate: of the optimizers, at its peak.
        warmup: steps until then.
        decay: weight decay.
        clip: largest norm of a step's gradient.
        save_every: steps between checkpoints.
    """

    rate: float
    warmup: int
    decay: float
    clip: float
    save_every: int


@dataclass(frozen=True, kw_only=True)
class Distil(Steps):
    """Gradient steps after the conversion.

    Attributes:
        tokens: of text, each read once; none, and there are no such steps.
        batch: tokens of a batch, which is of texts of one length.
        accumulate: batches of a step.
        states: weight of the loss on every token's last hidden state.
        vectors: weight of the loss on embeddings.
        neighbours: weight of the loss on the similarities within a batch, at every one of the student's widths.
        temperature: of those similarities.
        bank: weight of the loss on the similarities to all the texts, as the teacher sees them.
        bank_temperature: of those similarities.
        balance: weight of the routers' load-balancing loss.
    """

    tokens: int
    batch: int
    accumulate: int
    states: float
    vectors: float
    neighbours: float
    temperature: float
    bank: float
    bank_temperature: float
    balance: float


@dataclass(frozen=True, kw_only=True)
class Contrast(Steps):
    """Contrastive steps after the distillation, where there are pairs.

    Attributes:
        drawn: pairs to learn from.
        held: pairs to judge by.
        layers: the last so many are trained, and what is below them is read once.
        pairs: of a batch.
        passes: over the pairs; none, and there are no such steps.
        batch: tokens that are in memory with gradients at a time.
        rank: see `pairs.consistent`.
        negatives: hard negatives of a pair.
        margin: see `pairs.hard_negatives`.
        temperature: of the similarities, here and below.
        vectors: weight of the distance from the teacher's embeddings; that of the contrast is 1.
        neighbours: weight of the loss on the similarities within a batch, at every one of the student's widths.
        balance: weight of the routers' load-balancing loss.
    """

    drawn: int
    held: int
    layers: int
    pairs: int
    passes: int
    batch: int
    rank: int
    negatives: int
    margin: float
    temperature: float
    vectors: float
    neighbours: float
    balance: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole recipe; `seed` decides everything that is drawn."""

    name: str
    seed: int
    prompts: dict[str, str]
    student: Student
    data: Data
    attend: Attend
    convert: Convert
    rotate: Rotate
    distil: Distil
    contrast: Contrast


def load_recipe(name: str) -> Recipe:
    """Read a recipe of the package by name, or a file by path.

    Raises:
        InputError: there is none, or it has an unknown, missing or ill-typed choice.
    """
    entry = resources.files("moembed.train") / "recipes" / f"{name}.toml"
    path = Path(name)
    try:
        text = path.read_text("utf-8") if path.suffix == ".toml" else entry.read_text("utf-8")
        raw = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"recipe {name}: {error}; name one of the package or a .toml file") from error
    sections = {
        "student": Student,
        "data": Data,
        "attend": Attend,
        "convert": Convert,
        "rotate": Rotate,
        "distil": Distil,
        "contrast": Contrast,
    }
    for section, kind in sections.items():
        raw[section] = _section(kind, raw.get(section), f"recipe {name}: [{section}]")
    recipe = _section(Recipe, raw, f"recipe {name}")
    if sorted(recipe.prompts) != ["passage", "query"]:
        raise InputError(f"recipe {name}: [prompts] are those of query and passage, found {sorted(recipe.prompts)}")
    return recipe


def _section(kind: type[_Section], raw: Any, where: str) -> _Section:
    if not isinstance(raw, dict):
        raise InputError(f"{where} is missing")
    wanted = {field.name: field.type for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(raw) - set(wanted)):
        raise InputError(f"{where}: unknown choices {', '.join(unknown)}; there are {', '.join(wanted)}")
    if missing := sorted(set(wanted) - set(raw)):
        raise InputError(f"{where}: missing choices {', '.join(missing)}")
    return kind(**{name: _value(raw[name], form, f"{where}: {name}") for name, form in wanted.items()})


def _value(value: Any, form: Any, where: str) -> Any:
    origin = get_origin(form) or form
    if origin is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, origin) or isinstance(value, bool):
        raise InputError(f"{where} = {value!r}; expected {getattr(form, '__name__', form)}")
    if origin is dict and form is not dict:
        return {key: _value(item, get_args(form)[1], f"{where}.{key}") for key, item in value.items()}
    if origin is list:
        return [_value(item, get_args(form)[0], where) for item in value]
    return value
