"""Dataclasses read from JSON and TOML: accepted values, and the message of each refusal."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from moembed.errors import InputError
from moembed.files.records import OPTIONAL, Count, Positive, Rule, Sha256, read_record, read_toml


@dataclass(frozen=True, kw_only=True)
class Part:
    size: Count
    digest: Sha256


@dataclass(frozen=True, kw_only=True)
class Whole:
    name: str
    on: bool
    ratio: float
    widths: tuple[Positive, ...]
    rates: list[float]
    kind: Literal["small", "large"]
    parts: dict[str, Part]
    layers: dict[int, str]
    even: Annotated[int, Rule(lambda value: value % 2 == 0, "an even integer")]
    owner: str | None = None
    notes: dict[str, str] = field(default_factory=dict)


VALID = {
    "name": "x",
    "on": True,
    "ratio": 2,
    "widths": [48, 24],
    "rates": [1, 0.5],
    "kind": "small",
    "parts": {"a/b.bin": {"size": 0, "digest": "0" * 64}},
    "layers": {"1": "one"},
    "even": -2,
    "owner": None,
    "notes": {},
}


def read(change=(), **options):
    return read_record(Whole, VALID | dict(change), "file.json", error=InputError, remedy="mend it", **options)


def test_values_become_fields_of_their_types():
    whole = read({"owner": "me"})
    assert whole == Whole(
        name="x",
        on=True,
        ratio=2.0,
        widths=(48, 24),
        rates=[1.0, 0.5],
        kind="small",
        parts={"a/b.bin": Part(size=0, digest="0" * 64)},
        layers={1: "one"},
        even=-2,
        owner="me",
    )
    assert type(whole.ratio) is float


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": 1}, "file.json: name = 1; expected a string: mend it"),
        ({"on": 1}, "on = 1; expected true or false"),
        ({"ratio": True}, "ratio = True; expected a finite number"),
        ({"ratio": float("nan")}, "ratio = nan; expected a finite number"),
        ({"ratio": 10**400}, "expected a finite number"),
        ({"widths": 48}, "widths = 48; expected a list"),
        ({"widths": [48, 0]}, r"widths\[1\] = 0; expected a positive integer"),
        ({"widths": [True]}, r"widths\[0\] = True; expected a positive integer"),
        ({"kind": "middling"}, "kind = 'middling'; expected one of small, large"),
        ({"kind": ["small"]}, r"kind = \['small'\]; expected one of"),
        ({"parts": []}, r"parts = \[\]; expected an object"),
        ({"parts": {"a/b": {"size": -1, "digest": "0" * 64}}}, r"parts\['a/b'\].size = -1; expected an integer of at least 0"),
        ({"parts": {"a": {"size": 1, "digest": "G" * 64}}}, "parts.a.digest = 'G+'; expected a sha256 of 64 hex digits"),
        ({"parts": {"\n" * 500: 1}}, r"parts\['.*1,002 characters\)\] = 1; expected an object"),
        ({"layers": {"01": "x"}}, "layers.01 = '01'; expected an integer as the key"),
        ({"layers": {"-1": "x"}}, "expected an integer as the key"),
        ({"even": 3}, "even = 3; expected an even integer"),
        ({"even": "4"}, "even = '4'; expected an even integer"),
        ({"owner": 3}, "owner = 3; expected a string"),
        ({"surprise": 1}, r"file.json: missing \[\], unknown \['surprise'\]; the fields are name, on, .*: mend it"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_the_remedy(change, said):
    with pytest.raises(InputError, match=said) as caught:
        read(change)
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(": mend it")


@dataclass(frozen=True, kw_only=True)
class Extended:
    name: str
    added: Part | None = field(default=None, metadata=OPTIONAL)


def test_an_optional_field_may_always_be_missing():
    options = {"error": InputError, "remedy": "mend it"}
    assert read_record(Extended, {"name": "x"}, "file.json", **options) == Extended(name="x")
    with pytest.raises(InputError, match=r"added.size = -1; expected an integer of at least 0"):
        read_record(Extended, {"name": "x", "added": {"size": -1, "digest": "0" * 64}}, "file.json", **options)
    with pytest.raises(InputError, match=r"missing \['name'\]"):
        read_record(Extended, {}, "file.json", **options)


def test_defaults_may_be_missing_only_where_that_is_allowed():
    short = {name: value for name, value in VALID.items() if name not in ("owner", "notes")}
    with pytest.raises(InputError, match=r"missing \['owner', 'notes'\]"):
        read_record(Whole, short, "file.json", error=InputError, remedy="mend it")
    whole = read_record(Whole, short, "file.json", error=InputError, remedy="mend it", use_defaults=True)
    assert (whole.owner, whole.notes) == (None, {})
    del short["name"]
    with pytest.raises(InputError, match=r"missing \['name'\]"):
        read_record(Whole, short, "file.json", error=InputError, remedy="mend it", use_defaults=True)


@dataclass(frozen=True)
class Dated:
    when: str


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("when = 2020-01-01", "r.toml: when = datetime.date.*; expected a string"),
        ("when = 12:00:00", "expected a string"),
        ("when = [1]", "expected a string"),
        ("when =", "r.toml is not valid TOML .*: mend it"),
        ("when = " + "[" * 100_000, "r.toml is not valid TOML"),
    ],
)
def test_toml(text, said):
    with pytest.raises(InputError, match=said):
        read_toml(Dated, text, "r.toml", error=InputError, remedy="mend it")


def test_toml_becomes_a_dataclass():
    assert read_toml(Dated, "when = '2020-01-01'", "r.toml", error=InputError, remedy="") == Dated("2020-01-01")


@dataclass(frozen=True)
class Limited:
    retries: Count | None


def test_an_optional_field_keeps_its_rule():
    options = {"error": InputError, "remedy": "mend it"}
    assert read_record(Limited, {"retries": None}, "file.json", **options) == Limited(None)
    assert read_record(Limited, {"retries": 3}, "file.json", **options) == Limited(3)
    with pytest.raises(InputError, match="retries = -1; expected an integer of at least 0"):
        read_record(Limited, {"retries": -1}, "file.json", **options)
