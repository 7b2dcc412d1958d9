"""Recipes: how a model is quantized, as data in `recipes/*.toml`."""

import tomllib
from dataclasses import dataclass
from importlib import resources

from moembed.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to quantize.

    Attributes:
        name: what `--recipe` calls it and the manifest records.
        attention_smoothing: 0 to 1, how far outliers of attention's input are moved into Wqkv, and of the last states into the
            projection, if there is one.
        ffn_smoothing: the same for the input of dense MLPs and experts.
        damping: of the rounding of weights; `moembed.quantize.rounding` says what it does.
        table: bits of a value in the table of word embeddings, 8 or 4.
        keep: share of the linear layers outside the experts that stay float32, the most sensitive first.
    """

    name: str
    attention_smoothing: float
    ffn_smoothing: float
    damping: float
    table: int
    keep: float


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    folder = resources.files("moembed.quantize") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name: str) -> Recipe:
    """Read a recipe by name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in recipe_names():
        raise InputError(f"no recipe {name!r}; there are {', '.join(recipe_names())}")
    raw = tomllib.loads((resources.files("moembed.quantize") / "recipes" / f"{name}.toml").read_text("utf-8"))
    smoothing = raw["smoothing"]
    return Recipe(
        name=raw["name"],
        attention_smoothing=smoothing["attention"],
        ffn_smoothing=smoothing["ffn"],
        damping=raw["rounding"]["damping"],
        table=raw["table"],
        keep=raw["keep"],
    )
