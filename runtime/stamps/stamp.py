"""Stamp of vectors: everything that decides their bytes."""

import json
from dataclasses import asdict, dataclass

from moembed.errors import InputError
from moembed.files.records import read_record

KEY = "moembed.stamp"  # in the metadata of Parquet and Arrow schemas
# In the metadata of a Parquet file with a stamp: its number of rows when it was written. Programs that join files keep the
# metadata of the first one, stamp included; a joined file has more rows than this.
ROWS_KEY = "moembed.rows"


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What decides the bytes of vectors.

    Attributes:
        model: name of the bundle; it decides nothing, but people read it.
        revision: commit of the hub that the bundle came from, or None.
        fingerprint: sha256 of the bundle's graph, weights and tokenizer.
        prompt: text in front of every text.
        width: number of components of a vector.
        precision: as for `quantize_embeddings`.
        scale: of int8 codes that share one scale; None for other precisions, and for codes with a scale per vector.
        normalized: True if vectors had unit length before they were quantized.
        overlong: treatment of texts that exceed the model's limit.
        max_tokens: that limit.
        kernels: family of kernels that decides bytes: `native`, `portable`, or `portable on <processor>` for float32 graphs.
        moembed: version of the package.
    """

    model: str
    revision: str | None
    fingerprint: str
    prompt: str
    width: int
    precision: str
    scale: float | None
    normalized: bool
    overlong: str
    max_tokens: int
    kernels: str
    moembed: str

    def to_json(self) -> str:
        """Return the stamp as one line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes, name: str) -> "Stamp":
        """Read a stamp.

        Args:
            text: from `to_json`.
            name: of the file that it stands in, for errors.

        Raises:
            InputError: it is no stamp, or one of another version.
        """
        remedy = "embed the texts again with this version of moembed"
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise InputError(f"the stamp of {name} is not JSON ({error}): {remedy}") from error
        return read_record(cls, raw, f"the stamp of {name}", error=InputError, remedy=remedy)


# Fields that say where vectors came from, but not what their bytes are.
INFORMATION = ("model", "revision", "moembed")


def deciding(stamp: Stamp) -> dict[str, object]:
    """Return the fields that decide bytes: what keys and digests of vectors are made of."""
    return {name: value for name, value in asdict(stamp).items() if name not in INFORMATION}


def differences(one: Stamp, other: Stamp) -> list[str]:
    """Return a line for every field that decides bytes and differs, such as `width: 384, and 256`."""
    others = deciding(other)
    pairs = [(name, value, others[name]) for name, value in deciding(one).items()]
    return [f"{name}: {first!r}, and {second!r}" for name, first, second in pairs if first != second]
