"""A bundle with a damaged file: a `BundleError`, or, where the manifest vouches for the damage, that or an answer."""

import json
import random
import shutil

import numpy as np
import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle, sha256_of
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.errors import BundleError, MoembedError

TEXTS = ["hello", "骆驼 zebra 0 9", "x" * 300]


def flipped(rng, content):
    for _ in range(rng.choice((1, 1, 1, 4, 64))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def cut(rng, content):
    del content[rng.randrange(len(content)) :]


def zeroed(rng, content):
    start = rng.randrange(len(content))
    size = min(rng.choice((1, 4, 64, 4096)), len(content) - start)
    content[start : start + size] = bytes([rng.choice((0, 255))]) * size


def lengthened(rng, content):
    content += rng.randbytes(rng.choice((1, 100, 5000)))


def moved(rng, content):
    start, size = rng.randrange(len(content)), rng.choice((1, 8, 100))
    content[start:start] = content[start : start + size]


DAMAGES = (flipped, flipped, cut, zeroed, lengthened, moved)


def damaged(int8, folder, rounds):
    """Damage a file of a copy again and again; how often it was refused and how often there were vectors."""
    rng, outcomes = random.Random(17), {"refused": 0, "vouched, refused": 0, "vouched, vectors": 0, "harmless": 0}
    manifest = (int8.folder / MANIFEST_FILE).read_text("utf-8")
    expected = Embedder(int8, threads=1).encode(TEXTS, prompt="").tobytes()
    names = sorted(Bundle.open(int8.folder).manifest.files)
    for number in range(rounds):
        name = (MANIFEST_FILE, *names)[number % (len(names) + 1)]
        vouched = name != MANIFEST_FILE and rng.random() < 0.6
        content = bytearray((int8.folder / name).read_bytes())
        before = bytes(content)
        rng.choice(DAMAGES)(rng, content)
        (folder / name).write_bytes(content)
        if vouched:
            raw = json.loads(manifest)
            raw["files"][name] = {"size": len(content), "sha256": sha256_of(folder / name)}
            (folder / MANIFEST_FILE).write_text(json.dumps(raw), "utf-8")
        try:
            vectors = Embedder.from_pretrained(folder, threads=1).encode(TEXTS, prompt="")
            assert vectors.shape == (len(TEXTS), 48), name
            assert vectors.dtype == np.float32
            # In the manifest a name may have changed, and no vector with it.
            assert vouched or vectors.tobytes() == expected, name
            assert vouched or name == MANIFEST_FILE or content == before, name
            outcomes["vouched, vectors" if vouched else "harmless"] += 1
        except BundleError:
            outcomes["vouched, refused" if vouched else "refused"] += 1
        except MoembedError:
            assert vouched, name  # a tokenizer that makes other ids of a text
            outcomes["vouched, refused"] += 1
        finally:
            (folder / name).write_bytes(before)
            (folder / MANIFEST_FILE).write_text(manifest, "utf-8")
    return outcomes


def test_some_damaged_files(int8, copy):
    outcomes = damaged(int8, copy, 26)
    assert outcomes["refused"] >= 5, outcomes
    assert outcomes["vouched, refused"] >= 1, outcomes


@pytest.mark.long
def test_many_damaged_files(int8, copy, count):
    print(damaged(int8, copy, count))
    shutil.rmtree(copy)
