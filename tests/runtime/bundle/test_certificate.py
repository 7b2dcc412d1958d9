"""Certificate of a bundle: its form, and the refusal of invalid ones."""

import json
import re
from dataclasses import asdict, fields, is_dataclass
from typing import get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moembed.bundle import certificate as page
from moembed.bundle.bundle import read_manifest
from moembed.bundle.certificate import Certificate, Machine, Quality, Reference, ReproducedExample, Stability
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import BundleError
from moembed.files.records import read_record
from support.certified import edit

_COUNT = st.integers(0, 2**53)
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)
_CERTIFICATES = st.builds(
    Certificate,
    reference=st.builds(Reference, kind=st.sampled_from(["checkpoint", "bundle"]), sha256=st.text(), size=_COUNT),
    texts=_COUNT,
    tokens=_COUNT,
    embedding_mean_cosine=_NUMBER,
    embedding_min_cosine=_NUMBER,
    embedding_max_abs=_NUMBER,
    hidden_max_abs=_NUMBER,
    neighbour_overlap=_NUMBER,
    same_experts=st.dictionaries(st.integers(0, 99), _NUMBER, max_size=3),
    size=_COUNT,
    machine=st.builds(
        Machine,
        cpu=st.text(),
        instructions=st.lists(st.text(), max_size=2).map(tuple),
        threads=_COUNT,
        system=st.text(),
        onnxruntime=st.text(),
        kernels=st.text(),
    ),
    stability=st.builds(
        Stability, _COUNT, st.integers(1, 2**53), _COUNT, _NUMBER, st.lists(_COUNT, max_size=2).map(tuple)
    ),
    quality=st.dictionaries(st.text(), st.builds(Quality, st.text(), _NUMBER, _NUMBER), max_size=2),
    examples=st.none()
    | st.dictionaries(
        st.text(), st.builds(ReproducedExample, st.text(), _NUMBER, _NUMBER, st.booleans()), min_size=1, max_size=2
    ),
)


def leaves(kind):
    for field in fields(kind):
        hint = get_type_hints(kind)[field.name]
        if is_dataclass(hint):
            yield from (f"{field.name}.{leaf}" for leaf in leaves(hint))
        else:
            yield field.name


def test_the_page_names_exactly_the_fields():
    documented = re.findall(r"^\| `([\w.]+)` \|", page.__doc__, re.MULTILINE)
    assert sorted(documented) == sorted(leaves(Certificate))
    assert all(f"`{field.name}`" in page.__doc__ for kind in (Quality, ReproducedExample) for field in fields(kind))


@given(_CERTIFICATES)
def test_a_certificate_survives_a_round_trip(certificate):
    raw = json.loads(json.dumps(asdict(certificate)))
    assert read_record(Certificate, raw, "certificate", error=BundleError, remedy="") == certificate


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"texts": -1}, "certificate.texts = -1; expected an integer of at least 0"),
        ({"tokens": True}, "certificate.tokens = True"),
        ({"size": 1.5}, "certificate.size = 1.5"),
        ({"embedding_mean_cosine": "1"}, "certificate.embedding_mean_cosine = '1'; expected a finite number"),
        ({"hidden_max_abs": float("nan")}, "certificate.hidden_max_abs = nan"),
        ({"hidden_max_abs": float("inf")}, "certificate.hidden_max_abs = inf"),
        ({"hidden_max_abs": 10**400}, "an integer of 401 digits"),
        ({"same_experts": [1]}, "certificate.same_experts = .*expected an object"),
        ({"same_experts": {"one": 1.0}}, "certificate.same_experts.one = 'one'; expected an integer as the key"),
        ({"same_experts": {"01": 1.0}}, "certificate.same_experts.01 = '01'"),
        ({"same_experts": {"1": None}}, "certificate.same_experts.1 = None"),
        ({"reference": "torch"}, "certificate.reference = 'torch'; expected an object"),
        ({"reference__kind": "cloud"}, "certificate.reference.kind = 'cloud'; expected one of checkpoint, bundle"),
        ({"reference__colour": "red"}, r"certificate.reference: missing \[\], unknown \['colour'\]"),
        ({"machine__instructions": "AVX2"}, "certificate.machine.instructions = 'AVX2'; expected a list"),
        ({"machine__instructions": [2]}, r"certificate.machine.instructions\[0\] = 2; expected a string"),
        ({"stability__comparisons": 0}, "certificate.stability.comparisons = 0; expected at least 1"),
        ({"quality": {"x": {"figure": "nDCG@10", "value": 1.0}}}, r"certificate.quality.x: missing \['baseline'\]"),
        ({"surprise": 1}, r"certificate: missing \[\], unknown \['surprise'\]"),
    ],
)
def test_a_malformed_certificate_is_refused(copy, change, said):
    edit(copy, **change)
    with pytest.raises(BundleError, match=said):
        read_manifest(copy)


def test_a_missing_field_is_named(copy):
    raw = json.loads((copy / MANIFEST_FILE).read_text())
    del raw["certificate"]["neighbour_overlap"]
    (copy / MANIFEST_FILE).write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"missing \['neighbour_overlap'\].*export it again"):
        read_manifest(copy)
