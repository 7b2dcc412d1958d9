"""The bundle format, version 2.

A bundle is a folder; `moembed.json` in it is the manifest, a JSON object with exactly these fields:

| field | type | meaning |
|---|---|---|
| `format` | integer | 2; a reader refuses any other |
| `name` | string | what to call the model |
| `recipe` | string | `fp32`, or what `moembed quantize` made of it: `int8`, `int8-wide` or `int8-table4` |
| `graph` | string | path of the ONNX file; its external data lies beside it |
| `hidden_size` | integer | width of the vectors |
| `max_tokens` | integer | most tokens of one text, prompt and special tokens included |
| `dims` | list of integers | widths the model was trained to be cut to (Matryoshka), widest first |
| `prompts` | object | prompt name -> text put in front |
| `prompt_required` | boolean | whether the model is wrong without a prompt |
| `num_experts` | integer | experts of every MoE layer |
| `routers` | object | MoE layer -> names of the values of the graph that its router computes: `weights` and `expert_indices` |
| `source` | object | `repo` and `revision` (or null), `config_sha256`, `weights_sha256` of the checkpoint |
| `made_with` | object | package -> version that wrote the bundle |
| `certificate` | object | what was measured when the bundle was written, field by field in `moembed.bundle.certificate` |
| `files` | object | relative path -> `size` in bytes and `sha256`, for every other file of the folder |

Beside the manifest lie `tokenizer.json`, `vocabulary.bin` (the same tokenizer in a form that opens at once; older bundles
and tokenizers of another family have none), `config.json` and the small files by which other loaders
(sentence-transformers, optimum, fastembed) recognize a model. Reading refuses a file that is missing or altered, a file that
is not listed (README, LICENSE and dot files excepted), a path that leaves the folder, and everything that is not JSON, ONNX
or a tokenizer's format; nothing is ever unpickled.
"""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import PurePosixPath
from typing import Any

from moembed.bundle.certificate import Certificate
from moembed.bundle.records import read_record
from moembed.errors import BundleError, shown
from moembed.files.untrusted import parse_object

MANIFEST_FILE = "moembed.json"
FORMAT = 2
RECIPES = ("fp32", "int8", "int8-wide", "int8-table4")


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and sha256 (hex) of one file of a bundle."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class RouterOutputs:
    """Names of the values of the graph that a router computes, `[tokens, top_k]` each."""

    weights: str
    expert_indices: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """The checkpoint a bundle was made from; `repo` and `revision` are None for a local folder of unknown origin."""

    repo: str | None
    revision: str | None
    config_sha256: str
    weights_sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The fields of `moembed.json`; the module's documentation says what each means."""

    name: str
    recipe: str
    graph: str
    hidden_size: int
    max_tokens: int
    dims: tuple[int, ...]
    prompts: dict[str, str]
    prompt_required: bool
    num_experts: int
    routers: dict[int, RouterOutputs]
    source: Source
    made_with: dict[str, str]
    certificate: Certificate
    files: dict[str, FileRecord]
    format: int = FORMAT

    def to_json(self) -> str:
        """The manifest as text; equal manifests give equal bytes."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and check a manifest.

        Raises:
            BundleError: not JSON, another format, a field missing, unknown or of the wrong type, or an unsafe path.
        """
        try:
            raw = parse_object(text)
        except ValueError as error:
            raise BundleError(
                f"{MANIFEST_FILE} is not a JSON object that can be used ({error}): this is not a moembed bundle, or it is "
                "damaged; export or copy it again"
            ) from error
        if "format" not in raw:
            raise BundleError(f"{MANIFEST_FILE} has no field 'format': this is not a moembed bundle")
        if not _is_int(raw["format"]) or raw["format"] != FORMAT:
            newer = _is_int(raw["format"]) and raw["format"] > FORMAT
            remedy = "upgrade moembed" if newer else "export the bundle again with this version"
            raise BundleError(
                f"{MANIFEST_FILE} has format {shown(raw['format'])}; this moembed reads format {FORMAT}: {remedy}"
            )
        wanted = {field.name for field in fields(cls)}
        if problems := sorted(wanted ^ set(raw)):
            missing = [name for name in problems if name in wanted]
            unknown = [name for name in problems if name not in wanted]
            raise BundleError(
                f"{MANIFEST_FILE}: missing {missing}, unknown {shown(unknown)}; "
                "the bundle is damaged or foreign; export it again"
            )
        return _checked(cls, raw)


def safe_path(path: str) -> bool:
    """Whether a manifest's path stays inside the folder on every platform."""
    pure = PurePosixPath(path)
    return (
        bool(path)
        and str(pure) == path
        and not pure.is_absolute()
        and ".." not in pure.parts
        and not set(path) & set("\\:\0")
    )


def _checked(cls: type[Manifest], raw: dict[str, Any]) -> Manifest:
    def need(name: str, ok: bool, expected: str) -> None:
        if not ok:
            raise BundleError(f"{MANIFEST_FILE}: {name} = {shown(raw[name])}; expected {expected}")

    for name in ("name", "recipe", "graph"):
        need(name, isinstance(raw[name], str), "a string")
    need("recipe", raw["recipe"] in RECIPES, f"one of {RECIPES} (a newer moembed may know more)")
    need("hidden_size", _is_int(raw["hidden_size"]) and raw["hidden_size"] > 0, "a positive integer")
    need(
        "max_tokens",
        _is_int(raw["max_tokens"]) and raw["max_tokens"] > 2,
        "a positive integer above 2, the special tokens",
    )
    dims = raw["dims"]
    need("dims", isinstance(dims, list) and all(_is_int(d) and 0 < d <= raw["hidden_size"] for d in dims), "widths")
    prompts = raw["prompts"]
    need("prompts", _is_text_map(prompts), "an object of strings")
    need("prompt_required", isinstance(raw["prompt_required"], bool), "true or false")
    need("num_experts", _is_int(raw["num_experts"]) and raw["num_experts"] > 0, "a positive integer")
    routers = read_record(dict[int, RouterOutputs], raw["routers"], f"{MANIFEST_FILE}: routers")
    need("made_with", _is_text_map(raw["made_with"]), "an object of strings")
    source, files = _source(raw["source"]), _files(raw["files"])
    need("graph", raw["graph"] in files, "one of the listed files")
    certificate = Certificate.from_dict(raw["certificate"], f"{MANIFEST_FILE}: certificate")
    checked = raw | {
        "source": source,
        "routers": routers,
        "files": files,
        "dims": tuple(dims),
        "certificate": certificate,
    }
    return cls(**checked)


def _source(raw: Any) -> Source:
    names = {field.name for field in fields(Source)}
    if not isinstance(raw, dict) or set(raw) != names:
        raise BundleError(f"{MANIFEST_FILE}: source = {shown(raw)} is malformed; expected an object of {sorted(names)}")
    for name, value in raw.items():
        optional = name in ("repo", "revision")
        if not (isinstance(value, str) or (optional and value is None)):
            expected = "a string or null" if optional else "a string"
            raise BundleError(f"{MANIFEST_FILE}: source.{name} = {shown(value)}; expected {expected}")
    return Source(**raw)


def _files(raw: Any) -> dict[str, FileRecord]:
    if not isinstance(raw, dict):
        raise BundleError(f"{MANIFEST_FILE}: files = {shown(raw)} is malformed; expected an object")
    for path, record in raw.items():
        if not safe_path(path):
            raise BundleError(
                f"{MANIFEST_FILE}: files lists {shown(path)}, a path that leaves the bundle: do not use this bundle"
            )
        well_formed = isinstance(record, dict) and set(record) == {"size", "sha256"}
        if not (well_formed and _is_int(record["size"]) and record["size"] >= 0 and _is_sha256(record["sha256"])):
            raise BundleError(
                f"{MANIFEST_FILE}: files[{shown(path)}] = {shown(record)} is malformed; expected a size in bytes and a sha256 "
                "of 64 hex digits"
            )
    return {path: FileRecord(**record) for path, record in raw.items()}


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
