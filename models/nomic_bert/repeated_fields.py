"""Fields by which transformers' own class repeats those of the published files of `nomic_bert`."""

from collections.abc import Mapping
from typing import Any

from moembed.errors import shown
from moembed.models.config_fields import is_one_of


def contradictions(raw: Mapping[str, Any], same_as: Mapping[str, str], remedy: str) -> list[str]:
    """Describe the fields that repeat another field with a different value; a line each.

    Args:
        raw: fields of a `config.json`.
        same_as: field -> the field that it repeats.
        remedy: a sentence for the end of each line.
    """
    repeated = {name: raw.get(field) for name, field in same_as.items()}
    width, heads, base = (raw.get(name) for name in ("n_embd", "n_head", "rotary_emb_base"))
    if isinstance(width, int) and isinstance(heads, int) and heads > 0:
        repeated["head_dim"] = width // heads
    found = [
        f"  {name} = {shown(raw[name])}: {same_as.get(name, 'n_embd / n_head')} is {expected!r}. {remedy}"
        for name, expected in repeated.items()
        if raw.get(name) is not None and not is_one_of(raw[name], (expected,))
    ]
    plain = {"rope_type": "default", "type": "default", "rope_theta": base, "partial_rotary_factor": 1}
    rope = raw.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(
        value is not None and not (name in plain and is_one_of(value, (plain[name],))) for name, value in rope.items()
    ):
        found.append(
            f"  rope_parameters = {shown(rope)}: implemented: default, of rotary_emb_base = {base!r}. {remedy}"
        )
    return found


def common_names(raw: Mapping[str, Any], same_as: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a `config.json` with those of transformers' own class, which has the rotary base in an object."""
    common = {name: raw[field] for name, field in same_as.items() if name != "rope_theta"}
    return {**raw, **common, "rope_parameters": {"rope_type": "default", "rope_theta": raw["rotary_emb_base"]}}
