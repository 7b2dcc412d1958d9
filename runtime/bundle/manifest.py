"""Bundle format, version 2.

A bundle is a folder. Its manifest `moembed.json` is a JSON object with these fields:

| field | type | meaning |
|---|---|---|
| `format` | integer | 2; any other is refused |
| `name` | string | name of the model |
| `recipe` | string | `fp32`, or the name of the recipe of `moembed quantize`: lower-case words, joined by hyphens |
| `graph` | string | path of the ONNX file; its external data is in the same folder |
| `hidden_size` | integer | width of the vectors |
| `max_tokens` | integer | maximum number of tokens of a text, prompt and special tokens included |
| `limit_source` | string | what stated that number, such as a field of a checkpoint's file; absent in older bundles |
| `dims` | list of integers | widths the model was trained for (Matryoshka), widest first |
| `prompts` | object | prompt name -> text in front |
| `prompt_required` | boolean | whether the model needs a prompt in front of every text |
| `pooling` | string | `cls` where a text's vector is the state of its first token; absent where it is the mean of all tokens |
| `pooled_layer_norm` | boolean | true where a LayerNorm without weights (epsilon 1e-5) follows the pooling; else absent |
| `num_experts` | integer | number of experts in each MoE layer; 0 in a model without such layers |
| `routers` | object | MoE layer -> names of the outputs of its router in the graph: `weights` and `expert_indices` |
| `source` | object | the checkpoint: `repo` and `revision` (or null), `config_sha256` and `weights_sha256` |
| `made_with` | object | package -> version that wrote the bundle |
| `int8` | object | scales of int8 vectors; `moembed.bundle.int8` describes the fields; absent in bundles of older versions |
| `certificate` | object | measurements from when the bundle was written; `moembed.bundle.certificate` describes the fields |
| `files` | object | relative path -> `size` in bytes and `sha256`, for all other files of the folder |

Further files are `tokenizer.json`, `vocabulary.bin` (the same tokenizer in a format that opens instantly; tokenizers of other
families have none), `config.json`, and the small files that other loaders (sentence-transformers, optimum, fastembed) need.
Refused are files that are missing or altered, files that are not listed (except README, LICENSE and dot files), and paths that
leave the folder. All files are JSON, ONNX or a tokenizer's format; nothing is ever unpickled.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from moembed.bundle.certificate import Certificate
from moembed.bundle.int8 import Int8
from moembed.errors import BundleError, shown
from moembed.files.records import OPTIONAL, Count, Positive, Rule, Sha256, read_record
from moembed.files.untrusted import parse_object

MANIFEST_FILE = "moembed.json"
MEAN: Literal["mean"] = "mean"  # the pooling of a manifest without the field
UNQUANTIZED = "fp32"  # the recipe of a bundle that `moembed export` wrote
FORMAT = 2
_REMEDY = "the bundle is damaged, or was written by another version of moembed; copy it or export it again"

RecipeName = Annotated[
    str, Rule(re.compile("[a-z0-9]+(-[a-z0-9]+)*").fullmatch, "a recipe's name, such as int8 or int8-wide")
]


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and sha256 (hex) of one file of a bundle."""

    size: Count
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class RouterOutputs:
    """Names of a router's outputs in the graph, `[tokens, top_k]` each."""

    weights: str
    expert_indices: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """Checkpoint that a bundle was made from; `repo` and `revision` are None for a local folder."""

    repo: str | None
    revision: str | None
    config_sha256: str
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Fields of `moembed.json`; the module's docstring describes them."""

    name: str
    recipe: RecipeName
    graph: str
    hidden_size: Positive
    max_tokens: Annotated[int, Rule(lambda value: value > 2, "an integer above 2, the number of special tokens")]
    dims: tuple[Positive, ...]
    prompts: dict[str, str]
    prompt_required: bool
    num_experts: Count
    routers: dict[int, RouterOutputs]
    source: Source
    made_with: dict[str, str]
    certificate: Certificate
    files: dict[str, FileRecord]
    int8: Int8 | None = field(default=None, metadata=OPTIONAL)
    pooling: Literal["mean", "cls"] = field(default=MEAN, metadata=OPTIONAL)
    pooled_layer_norm: bool = field(default=False, metadata=OPTIONAL)
    limit_source: str = field(default="", metadata=OPTIONAL)
    format: int = FORMAT

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths that the model was trained for, and that of its vectors, widest first."""
        return tuple(sorted({self.hidden_size, *self.dims}, reverse=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain data, without the optional fields that it does not have."""
        raw = asdict(self)
        if raw["certificate"]["examples"] is None:
            del raw["certificate"]["examples"]
        if raw["int8"] is None:
            del raw["int8"]
        if raw["pooling"] == MEAN:
            del raw["pooling"]
        for name in ("pooled_layer_norm", "limit_source"):
            if not raw[name]:
                del raw[name]
        return raw

    def to_json(self) -> str:
        """Serialize the manifest; equal manifests give equal bytes."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and check a manifest.

        Raises:
            BundleError: the text is not JSON, has another format, has missing, unknown or invalid fields, or an unsafe path.
        """
        try:
            raw = parse_object(text)
        except ValueError as error:
            raise BundleError(
                f"{MANIFEST_FILE} is not a valid JSON object ({error}): this is not a moembed bundle, or it is damaged; copy it "
                "or export it again"
            ) from error
        if "format" not in raw:
            raise BundleError(f"{MANIFEST_FILE} has no field 'format': this is not a moembed bundle")
        found = raw["format"]
        if type(found) is not int or found != FORMAT:
            newer = type(found) is int and found > FORMAT
            remedy = "upgrade moembed" if newer else "export the bundle again with this version"
            raise BundleError(
                f"{MANIFEST_FILE} has format {shown(found)}; this version of moembed reads format {FORMAT}: {remedy}"
            )
        manifest = read_record(cls, raw, MANIFEST_FILE, error=BundleError, remedy=_REMEDY)
        _check(manifest)
        return manifest


def safe_path(path: str) -> bool:
    """Check that a path of a manifest stays inside the folder on all platforms."""
    pure = PurePosixPath(path)
    return (
        bool(path)
        and str(pure) == path
        and not pure.is_absolute()
        and ".." not in pure.parts
        and not set(path) & set("\\:\0")
    )


def _check(manifest: Manifest) -> None:
    """Check the fields that depend on each other, and the paths."""

    def need(holds: bool, name: str, value: object, expected: str) -> None:
        if not holds:
            raise BundleError(f"{MANIFEST_FILE}: {name} = {shown(value)}; expected {expected}: {_REMEDY}")

    hidden = manifest.hidden_size
    need(max(manifest.dims, default=0) <= hidden, "dims", manifest.dims, f"widths of at most {hidden}, the hidden_size")
    if manifest.int8 is not None:
        scales, clipped = sorted(manifest.int8.scales), sorted(manifest.int8.clipped)
        need(min(scales, default=0) > 0, "int8.scales", scales, "a scale for each width, which is positive")
        need(clipped == scales, "int8.clipped", clipped, f"a share for the same widths as int8.scales, {scales}")
    need(manifest.graph in manifest.files, "graph", manifest.graph, "one of the listed files")
    for path in manifest.files:
        if not safe_path(path):
            raise BundleError(
                f"{MANIFEST_FILE}: files lists {shown(path)}, a path that leaves the bundle: do not use this bundle"
            )
