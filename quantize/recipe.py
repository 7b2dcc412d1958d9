"""Quantization recipes: one TOML file each in `recipes/`, whose name is the file's."""

from dataclasses import dataclass
from importlib import resources
from typing import Annotated

from moembed.bundle.manifest import UNQUANTIZED
from moembed.errors import InputError
from moembed.files.records import Rule, read_toml
from moembed.verify.tolerances import FP32, Tolerance

FOLDER = resources.files("moembed.quantize") / "recipes"
Share = Annotated[float, Rule(lambda value: 0 <= value <= 1, "a number from 0 to 1")]


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Strengths of the smoothing factors; `moembed.quantize.smoothing` explains them.

    Attributes:
        attention: how far outliers of attention's input are moved into Wqkv, and of the last hidden states into the projection,
            if there is one.
        ffn: how far outliers of the input of dense MLPs and experts are moved into their first matrices.
    """

    attention: Share
    ffn: Share


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Rounding of weights.

    Attributes:
        damping: see `moembed.quantize.rounding`.
    """

    damping: Annotated[float, Rule(lambda value: value > 0, "a number above 0")]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to quantize.

    Attributes:
        table: bits of a value in the table of word embeddings, 8 or 4.
        attention: `"integer"` for queries in 16 bits, and keys and values in 8; `"float"` for float32.
        keep: share of the linear layers outside the experts that stay float32, the most sensitive first.
        smoothing: how outliers of activations are moved into weights.
        rounding: how weights are rounded.
        tolerance: how far a bundle may be from the fp32 bundle that it was made from.
    """

    table: Annotated[int, Rule((4, 8).__contains__, "4 or 8")]
    attention: Annotated[str, Rule(("integer", "float").__contains__, '"integer" or "float"')]
    keep: Share
    smoothing: Smoothing
    rounding: Rounding
    tolerance: Tolerance


def recipe_names() -> list[str]:
    """Return the names of all recipes, sorted."""
    return sorted(entry.name.removesuffix(".toml") for entry in FOLDER.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name.

    Raises:
        InputError: there is no recipe of that name, or its file is malformed.
    """
    if name not in recipe_names():
        raise InputError(
            f"unknown recipe {name!r}: this version of moembed has {', '.join(recipe_names())}; use one of them or upgrade"
        )
    file = f"{name}.toml"
    text = (FOLDER / file).read_text("utf-8")
    return read_toml(Recipe, text, file, error=InputError, remedy="correct the recipe", use_defaults=True)


def tolerance_of(recipe: str) -> Tolerance:
    """Return how far a bundle may be from its reference, by the recipe that its manifest names.

    Raises:
        InputError: as `load_recipe`.
    """
    return FP32 if recipe == UNQUANTIZED else load_recipe(recipe).tolerance
