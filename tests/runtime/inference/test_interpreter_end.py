"""Daemon threads in native code at interpreter exit: no signal, no abort, no message."""

import os
import subprocess
import sys

import pytest

from moembed.native.loader import native_library

_SCRIPT = """
import sys, threading
from moembed import Embedder
from moembed.inference.session import Session
from moembed.tokenizer.tokenizer import Tokenizer
model = Embedder.from_pretrained(threads=2)
reference = Tokenizer(model.bundle, backend="tokenizers")
long = "some words about bridges and rivers " * 2000
WORK = {
    "ids": lambda: list(model.tokenizer.encode([long] * 20)),
    "spans": lambda: model.tokenizer.encode_with_offsets(long),
    "pieces": lambda: model.tokenizer.token_strings(range(100)),
    "tokenizers": lambda: list(reference.encode([long])),
    "vectors": lambda: model.encode(["some words about bridges"] * 64, prompt=""),
    "routing": lambda: model.routing("some words about bridges", prompt=""),
    "opening a session": lambda: Session(model.bundle),
    "opening a tokenizer": lambda: Tokenizer(model.bundle),
}
work = WORK[sys.argv[1]]
turning = threading.Barrier(4)
def loop():
    try:
        work()
    except BaseException:
        turning.abort()
        raise
    turning.wait()
    while True:
        work()
for _ in range(3):
    threading.Thread(target=loop, daemon=True).start()
turning.wait()
print("the end", flush=True)
"""
KINDS = ("ids", "spans", "pieces", "tokenizers", "vectors", "routing", "opening a session", "opening a tokenizer")


def ended(kind):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, kind], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", ""), kind


@pytest.mark.parametrize("kind", ["ids", "vectors"])
def test_a_daemon_thread_at_the_end(kind):
    if native_library().functions is None:
        pytest.skip("the native library was not compiled")
    for _ in range(2):
        ended(kind)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_daemon_threads_at_the_end_again_and_again(kind, count):
    for _ in range(count):
        ended(kind)


def test_exit_handlers_and_threads_that_are_no_daemons_still_embed():
    script = """
import atexit, threading
atexit.register(lambda: print(model.encode("x", prompt="").shape, flush=True))
from moembed import Embedder
model = Embedder.from_pretrained()
def late():
    threading.main_thread().join()
    print(model.encode("x", prompt="").shape, flush=True)
threading.Thread(target=late).start()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(384,)\n" * 2, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_child_waits_for_no_thread_of_its_parent():
    script = """
import os, sys, threading
from moembed import Embedder
model = Embedder.from_pretrained(threads=1)
def loop():
    while True:
        model.encode(["some words about bridges"] * 64, prompt="")
threading.Thread(target=loop, daemon=True).start()
for _ in range(5):
    child = os.fork()
    if not child:
        sys.exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    # ONNX Runtime's telemetry has threads of its own, for which a forked child would wait.
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
