"""Export at the published size: 475 M random parameters with the real names and shapes. `pytest -m full`; minutes, 12 GB."""

import json
import resource
import subprocess
import sys
import time

import pytest

from moembed.verify.tolerances import FP32
from support.checkpoints import PUBLISHED_CONFIG, write_checkpoint

pytestmark = pytest.mark.full
EXPORT_SECONDS, EXPORT_BYTES = 600, 12e9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("full") / "checkpoint", PUBLISHED_CONFIG)


def test_full_size(checkpoint, tmp_path):
    out = tmp_path / "bundle"
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "moembed", "export", str(checkpoint), "-o", str(out)], check=True)
    assert time.monotonic() - start < EXPORT_SECONDS
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < EXPORT_BYTES
    command = [
        sys.executable,
        "-m",
        "moembed",
        "verify",
        str(out),
        "--against",
        str(checkpoint),
        "--texts",
        "6",
        "--json",
    ]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert report["passed"]
    assert report["stability"]["differing"] == 0
    tolerance = FP32
    assert (tolerance.hidden_max_abs, tolerance.embedding_min_cosine, tolerance.margin) == (2e-4, 0.999999, 1e-5)
    for parity in report["parity"]:
        assert parity["hidden_max_abs"] <= tolerance.hidden_max_abs
        assert parity["embedding_min_cosine"] >= tolerance.embedding_min_cosine
        assert len(parity["routing"]) == 6
