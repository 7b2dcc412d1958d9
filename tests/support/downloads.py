"""A file to download, and what the tests look at while it is downloaded."""

import pytest

from moembed.hub.client import Patience
from moembed.hub.download import Source, download
from moembed.hub.unfinished import PART
from support.hub_server import digest_of

SIZE = 3_000_000
WEIGHTS = "model.safetensors"
# Short, so that a stall is over soon; long enough for a loaded machine to answer.
PATIENCE = Patience(timeout=1.0, attempts=3, pause=0.01, longest_wait=3.0, enough=SIZE)


def source_of(hub, file=WEIGHTS, **more):
    address = f"{hub.endpoint}/acme/model/resolve/{hub.commit}/{file}"
    return Source(address, file, "acme/model", hub.commit, **{"size": SIZE, "sha256": digest_of(hub.weights)} | more)


def leftovers(target):
    return sorted(path.name for path in target.parent.iterdir() if path != target)


def ranges(hub):
    return [request.range for request in hub.stored if request.method == "GET"]


def stop_after(size):
    def progress(done, _total):
        if done >= size:
            raise KeyboardInterrupt

    return progress


def interrupt(client, source, target, size=1_000_000):
    with pytest.raises(KeyboardInterrupt):
        download(client, source, target, progress=stop_after(size))
    return target.with_name(WEIGHTS + PART).stat().st_size
