"""Worker process: computes shards that its parent names on stdin, and ends with its parent.

It reads the job as one line of JSON, then a number of a shard on each line. It writes lines of JSON: `advance` with rows and
tokens, `done` with a shard and its counts, or `error` with the class and the message.
"""

import ctypes
import json
import os
import queue
import signal
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from moembed.bundle.bundle import Bundle
from moembed.corpus.job import Job, ModelOptions
from moembed.corpus.shards import make_shard
from moembed.corpus.target import open_target
from moembed.corpus.vectors import Encoder
from moembed.embedder import Embedder
from moembed.errors import BundleError, MoembedError

_PR_SET_PDEATHSIG = 1


def encoder_of(model: ModelOptions) -> Encoder:
    """Open the model of a job.

    Raises:
        BundleError: the bundle cannot be opened, or is another one.
    """
    bundle = Bundle.open(Path(model.folder), exclusive=False)
    if bundle.fingerprint != model.fingerprint:
        raise BundleError(f"{model.folder} has another bundle than when this run began: put the same one there")
    embedder = Embedder(bundle, providers=model.providers, threads=model.threads, spin=False)
    return Encoder(
        embedder, prompt=model.prompt, dim=model.dim, precision=model.checked_precision, overlong=model.policy
    )


def main() -> None:
    """Run the worker."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):  # the terminal sends them to all of its processes; the parent decides
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nobody else writes into the answers
    job = Job.from_json(sys.stdin.readline())
    shards: queue.Queue[int] = queue.Queue()
    threading.Thread(target=_listen, args=(shards,), name="moembed-parent", daemon=True).start()

    def tell(**answer: Any) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    try:
        encoder = encoder_of(job.model)
        target = open_target(job.folder, job.token, renames=job.renames)
        while True:
            shard = shards.get()
            counts = make_shard(job, encoder, target, shard, lambda rows, tokens: tell(advance=[rows, tokens]))
            tell(done=shard, counts=asdict(counts))
    except MoembedError as error:
        tell(error=type(error).__name__, message=str(error))
    except BrokenPipeError:
        os._exit(1)  # the parent is gone


def _listen(shards: "queue.Queue[int]") -> None:
    """Take numbers of shards from the parent; the end of its pipe ends this process, whatever it computes."""
    for line in sys.stdin:
        shards.put(int(line))
    os._exit(0)


if __name__ == "__main__":
    main()
