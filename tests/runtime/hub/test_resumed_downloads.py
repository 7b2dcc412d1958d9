"""Downloads that go on where an earlier one ended, or start anew because its bytes do not fit (N02)."""

import json
import os

import pytest

from moembed.errors import SourceError
from moembed.hub.download import download
from moembed.hub.unfinished import PART, RECORD
from support.downloads import SIZE, WEIGHTS, interrupt, leftovers, ranges, source_of
from support.hub_server import Fault, digest_of


def test_a_partial_that_is_too_long_is_not_used(served, client, source, target):  # N02
    interrupt(client, source, target)
    with target.with_name(WEIGHTS + PART).open("ab") as file:
        file.write(bytes(SIZE))
    assert download(client, source, target) == digest_of(served.weights)
    assert ranges(served)[-1] is None


def test_416_starts_anew(served, client, target, lines):  # N02
    source = source_of(served, size=None, sha256=None)
    interrupt(client, source, target)
    with served.weights.open("r+b") as file:
        file.truncate(10_000)
    part = target.with_name(WEIGHTS + RECORD)
    record = json.loads(part.read_text())
    part.write_text(json.dumps(record | {"etag": f'"{digest_of(served.weights)[:32]}"'}))
    assert download(client, source, target) == digest_of(served.weights)
    assert ranges(served)[-1] is None
    assert "status 416" in lines[0]


def test_200_to_a_range_starts_anew(served, client, source, target):  # N02
    assert interrupt(client, source, target) >= 1_000_000
    served.faults[WEIGHTS] = Fault("whole", times=1)
    assert download(client, source, target) == digest_of(served.weights)
    assert len(ranges(served)) == 2, "the answer is used"


def test_206_of_another_version_starts_anew(served, client, source, target, lines):  # N02
    interrupt(client, source, target)
    served.faults[WEIGHTS] = Fault("other", times=1)
    assert download(client, source, target) == digest_of(served.weights)
    assert ranges(served)[-1] is None
    assert "with the ETag" in lines[0]


def test_206_of_another_version_for_ever_is_an_error(served, client, source, target):  # N02
    kept = interrupt(client, source, target)
    served.faults[WEIGHTS] = Fault("other", keep=1_000_000)
    with pytest.raises(SourceError, match="could not be downloaded: .* has another version of it, with the ETag"):
        download(client, source, target)
    assert ranges(served)[1:] == [f"bytes={kept}-", None, "bytes=1000000-"], "started anew once"
    assert leftovers(target) == []


def test_a_version_that_changed_between_two_runs_is_not_joined(served, client, target):  # N02
    """Neither the size nor the digest is known: the ETag decides."""
    source = source_of(served, size=None, sha256=None)
    interrupt(client, source, target)
    served.weights.write_bytes(os.urandom(SIZE))
    assert download(client, source, target) == digest_of(served.weights)
    assert served.stored[-1].headers["if-range"], "the server was asked for the old version"


def test_a_digest_that_changed_between_two_runs_starts_anew(served, client, source, target):  # N02
    interrupt(client, source, target)
    served.weights.write_bytes(os.urandom(SIZE))
    assert download(client, source_of(served), target) == digest_of(served.weights)
    assert ranges(served)[-1] is None


def test_weak_etags_are_not_joined_without_a_digest(served, client, target):  # N02, N11
    served.weak = True
    source = source_of(served, size=None, sha256=None)
    interrupt(client, source, target)
    assert download(client, source, target) == digest_of(served.weights)
    assert ranges(served) == [None, None]


def test_weak_etags_are_joined_with_a_digest(served, client, source, target):  # N02, N11
    served.weak = True
    interrupt(client, source, target)
    assert download(client, source, target) == digest_of(served.weights)
    assert ranges(served)[-1] is not None


def test_a_joined_file_with_a_wrong_digest_starts_anew(served, client, source, target, lines):  # N02
    interrupt(client, source, target)
    with target.with_name(WEIGHTS + PART).open("r+b") as file:
        file.write(b"x" * 100)
    assert download(client, source, target) == digest_of(served.weights)
    assert ranges(served)[-1] is None
    assert "sha256" in lines[0]


def test_an_address_that_expires_is_asked_for_again(served, client, source, target):  # N02
    interrupt(client, source, target)
    served.faults[WEIGHTS] = Fault("expired", times=1)
    before = len(served.requests)
    assert download(client, source, target) == digest_of(served.weights)
    assert len(served.requests) - before == 2, "the hub gave another address"
    assert ranges(served)[-1] is not None
