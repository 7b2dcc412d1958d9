"""Worker processes that compute shards. They share the mapped weights, and none outlives this process.

They are started as programs of their own, so that a script needs no main guard, and notebooks and `python -c` work.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from moembed import errors
from moembed.corpus.job import Job
from moembed.corpus.shards import Counts, Progress
from moembed.errors import MoembedError

_STOP_SECONDS = 5.0


def run_workers(
    job: Job, shards: Iterable[int], workers: int, advance: Progress, done: Callable[[int, Counts], object]
) -> None:
    """Compute shards in worker processes.

    Args:
        job: the job.
        shards: numbers of the shards.
        workers: number of processes.
        advance: called with numbers of rows and of tokens.
        done: called with each shard that is finished and its counts.

    Raises:
        MoembedError: what a worker raised, or a worker was killed.
    """
    todo = deque(shards)
    answers: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    running: dict[int, subprocess.Popen[str]] = {}
    try:
        for number in range(min(workers, len(todo))):
            running[number] = _start(replace(job, token=f"{job.token}-{number}"), number, answers)
            _send(running[number], todo.popleft())
        left = len(running)
        while left:
            number, answer = answers.get()
            if answer is None:
                code = running[number].wait()
                raise MoembedError(
                    f"worker {number} ended with exit code {code} (of a signal if below 0; -9 is often a lack of memory): give "
                    "the same command again to go on, perhaps with fewer workers"
                )
            if "advance" in answer:
                advance(*answer["advance"])
            elif "done" in answer:
                done(answer["done"], Counts(**answer["counts"]))
                if todo:
                    _send(running[number], todo.popleft())
                else:
                    left -= 1
            else:
                kind = getattr(errors, answer["error"], MoembedError)
                error: MoembedError = kind.__new__(kind, answer["message"])
                error.args = (answer["message"],)
                raise error
    finally:
        _stop(running.values())


def _start(job: Job, number: int, answers: "queue.Queue[tuple[int, dict[str, Any] | None]]") -> "subprocess.Popen[str]":
    # -P: the folder of the caller may have modules named as those of the library.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "moembed.corpus.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        encoding="utf-8",
    )

    def listen() -> None:
        if process.stdout is not None:
            for line in process.stdout:
                with suppress(ValueError):  # a line that was cut when the worker was killed
                    answers.put((number, json.loads(line)))
        answers.put((number, None))

    threading.Thread(target=listen, name=f"moembed-worker-{number}", daemon=True).start()
    _write(process, job.to_json())
    return process


def _send(process: "subprocess.Popen[str]", shard: int) -> None:
    _write(process, str(shard))


def _write(process: "subprocess.Popen[str]", line: str) -> None:
    with suppress(BrokenPipeError):  # the worker is dead, which its answers tell
        if process.stdin is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()


def _stop(processes: Iterable["subprocess.Popen[str]"]) -> None:
    processes = list(processes)
    for process in processes:
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
    for process in processes:
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
