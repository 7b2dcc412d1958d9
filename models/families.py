"""The families of networks that moembed implements, and which of them a checkpoint is of."""

from pathlib import Path
from typing import Any

from moembed.bundle.bundle import sha256_of
from moembed.errors import CheckpointError, shown
from moembed.models.bert.family import BertFamily
from moembed.models.config import CONFIG_FILE, NetworkConfig, read_raw_config
from moembed.models.family import Family
from moembed.models.gte.family import GteFamily
from moembed.models.nomic_bert.family import NomicBertFamily
from moembed.models.nomic_bert_moe.family import NomicBertMoe
from moembed.models.sentence_transformers import read_pooling

FAMILIES: tuple[Family, ...] = (NomicBertMoe(), NomicBertFamily(), BertFamily(), GteFamily())


def family_of(config: NetworkConfig) -> Family:
    """Return the family of a configuration."""
    return next(family for family in FAMILIES if isinstance(config, family.config))


def family_named(name: str) -> Family:
    """Return a family by its name."""
    return next(family for family in FAMILIES if family.name == name)


def family_of_raw(raw: dict[str, Any]) -> Family:
    """Return the family that reads a `config.json`.

    Raises:
        CheckpointError: no family has its `model_type`.
    """
    for family in FAMILIES:
        if family.reads(raw):
            return family
    found = raw.get("model_type")
    known = ", ".join(sorted({name for family in FAMILIES for name in family.model_types}))
    raise CheckpointError(
        f"config.json: model_type = {shown(found)}: a family of networks that moembed does not implement; implemented: {known}"
    )


def read_config(folder: Path) -> NetworkConfig:
    """Read what network a checkpoint is: its `config.json`, and how sentence-transformers' files pool.

    Raises:
        CheckpointError: a file is missing or malformed, or asks for something that is not implemented.
    """
    path = folder / CONFIG_FILE
    raw = read_raw_config(path)
    family = family_of_raw(raw)
    return family.read_config(raw, read_pooling(folder, family.poolings, family.default_pooling), sha256_of(path))
