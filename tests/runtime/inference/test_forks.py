"""Processes forked or spawned from one with a model: same bytes, and a clean exit."""

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.pull.opening import DEFAULT_FOLDER
from support.bundles import change_bundle
from support.serving import wait_until

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
TEXTS = ["hello", "a text of some more words", "x " * 40]
PRELUDE = """
import hashlib, multiprocessing, os, sys, threading
from moembed import Embedder
from moembed.pull.opening import open_bundle
texts = {texts!r}
model = Embedder(open_bundle(None), threads={threads}, spin={spin})
# Short: several processes print into one pipe, which keeps up to 4 KB in one piece.
def digest(part=texts): return hashlib.sha256(model.encode_query(part).tobytes()).hexdigest()
"""
# Waits for a child for so long; an exit that hangs does so for ever.
DEADLINE = 60


def output_of(script: str, *, threads: int = 3, spin: bool = False, **environment: str) -> str:
    """Run a program with a model and return its output; it and all its children must exit."""
    source = PRELUDE.format(texts=TEXTS, threads=threads, spin=spin) + textwrap.dedent(script)
    return output_of_command("-c", source, **environment)


def output_of_command(*command: str, cwd: Path | None = None, **environment: str) -> str:
    """Run Python and return its output; it and all its children must exit."""
    with subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
        env=os.environ | environment,
    ) as process:
        try:
            out, errors = process.communicate(timeout=DEADLINE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, errors
    return out


def sha256(data: bytes) -> str:
    """Return what `digest()` of a program gives for the bytes of vectors."""
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def expected(model):
    return sha256(model.encode_query(TEXTS).tobytes())


@forking
@pytest.mark.parametrize(("threads", "spin"), [(1, True), (3, True), (3, False)])
@pytest.mark.parametrize("warm", [True, False], ids=["after a run", "before any"])
def test_fork_and_normal_exit(threads, spin, warm, expected):
    script = f"""
    {warm} and digest()
    if os.fork() == 0:
        print(digest(), flush=True)
        sys.exit(0)
    assert os.wait()[1] == 0
    print(digest())
    """
    assert output_of(script, threads=threads, spin=spin).split() == [expected, expected]


@forking
def test_a_child_that_never_embeds_exits_too():
    script = """
    digest(), model.routing("hello")
    if os.fork() == 0:
        sys.exit(0)
    print(os.wait()[1])
    """
    assert output_of(script).split() == ["0"]


@forking
def test_a_grandchild_and_a_child_that_drops_the_model(expected):
    script = """
    if os.fork() == 0:
        if os.fork() == 0:
            print(digest(), flush=True)
            del model
            sys.exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    assert os.wait()[1] == 0
    """
    assert output_of(script).split() == [expected]


@forking
def test_routing_in_a_child(model):
    script = """
    model.routing("hello")
    if os.fork() == 0:
        print(model.routing("hello").vector.tobytes().hex(), flush=True)
        sys.exit(0)
    assert os.wait()[1] == 0
    """
    assert output_of(script).split() == [model.routing("hello").vector.tobytes().hex()]


@forking
def test_fork_while_other_threads_are_inside_the_session(expected):
    script = """
    stop = threading.Event()
    def work():
        while not stop.is_set():
            digest()
    busy = [threading.Thread(target=work) for _ in range(2)]
    for thread in busy:
        thread.start()
    children = []
    for _ in range(5):
        digest()
        if (child := os.fork()) == 0:
            print(digest(), flush=True)
            sys.exit(0)
        children.append(child)
    assert not any(os.waitpid(child, 0)[1] for child in children)
    stop.set()
    """
    assert output_of(script).split() == [expected] * 5


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, expected, tmp_path):
    """A file, not `-c`: its children import it again."""
    if method == "fork" and not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    script = tmp_path / "program.py"
    main = f"""
if __name__ == "__main__":
    digest()
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(*pool.map(digest, [texts] * 4))
        pool.close()
        pool.join()
"""
    script.write_text(PRELUDE.format(texts=TEXTS, threads=3, spin=False) + main)
    assert output_of_command(str(script)).split() == [expected] * 4


@forking
def test_without_the_native_library():
    """The tokenizer of `tokenizers` has threads of its own. Portable kernels have bytes of their own."""
    script = """
    from moembed.tokenizer.tokenizer import Tokenizer
    model.tokenizer = Tokenizer(model.bundle, backend="tokenizers")
    expected = digest()
    if os.fork() == 0:
        print(digest() == expected, flush=True)
        sys.exit(0)
    assert os.wait()[1] == 0
    """
    assert output_of(script, MOEMBED_KERNELS="portable").split() == ["True"]


@forking
def test_a_bundle_replaced_since_is_refused(tmp_path):
    folder = shutil.copytree(DEFAULT_FOLDER, tmp_path / "bundle")
    model = Embedder(Bundle.open(folder), threads=1)
    model.encode("x", prompt="")
    change_bundle(folder)
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        with contextlib.suppress(BaseException):
            try:
                model.encode("x", prompt="")
            except Exception as error:
                os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = os.read(reader, 10_000).decode()
    os.close(reader), os.close(writer)
    assert said.startswith(f"BundleError: {folder} has another bundle than")


APPLICATION = """
from moembed import Embedder
from moembed.pull.opening import open_bundle
model = Embedder(open_bundle(None), threads=3, spin=False)
model.encode_query("warm")
def app(environ, start_response):
    import os
    start_response("200 OK", [("X-Process", str(os.getpid()))])
    return [model.encode_query({texts!r}).tobytes()]
"""


@forking
def test_gunicorn_with_preload(tmp_path, expected):
    pytest.importorskip("gunicorn")
    (tmp_path / "application.py").write_text(APPLICATION.format(texts=TEXTS))
    command = ["-m", "gunicorn", "--preload", "-w", "2", "-b", "127.0.0.1:0", "--graceful-timeout", "50"]
    command += ["--worker-tmp-dir", str(tmp_path), "--no-control-socket", "application:app"]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(iter(process.stderr.readline, "")), daemon=True)
    reader.start()
    try:
        wait_until(lambda: sum("Booting worker" in line for line in log) == 2, DEADLINE)
        port = int(re.search(r"127\.0\.0\.1:(\d+)", "".join(log))[1])
        workers = set()
        while len(workers) < 2:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            connection.request("GET", "/")
            response = connection.getresponse()
            workers.add(response.headers["X-Process"])
            assert sha256(response.read()) == expected
            connection.close()
        started = time.monotonic()
        process.terminate()
        process.wait(DEADLINE)
        assert time.monotonic() - started < 25, "the workers left only when they had to"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0


TASKS = """
import hashlib
from celery import Celery
from moembed import Embedder
app = Celery("tasks", broker="filesystem://", backend="file://{folder}/results")
app.conf.broker_transport_options = {{
    "data_folder_in": "{folder}/queue", "data_folder_out": "{folder}/queue", "control_folder": "{folder}/control"
}}
model = Embedder.from_pretrained(threads=2)
model.encode_query("warm")
@app.task
def embed(texts):
    return hashlib.sha256(model.encode_query(texts).tobytes()).hexdigest()
"""


@forking
@pytest.mark.long
def test_celery_prefork(tmp_path, expected):
    pytest.importorskip("celery")
    for name in ("results", "queue", "control"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks.py").write_text(TASKS.format(folder=tmp_path))
    command = ["-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "-c", "2", "--without-mingle"]
    process = subprocess.Popen(
        [sys.executable, *command, "--without-gossip", "-l", "INFO"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    script = (
        f"import tasks; print(*(r.get(timeout={DEADLINE}) for r in [tasks.embed.delay({TEXTS!r}) for _ in range(6)]))"
    )
    try:
        assert output_of_command("-c", script, cwd=tmp_path).split() == [expected] * 6
        started = time.monotonic()
        process.terminate()
        process.wait(DEADLINE)
        assert time.monotonic() - started < 25
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_the_bytes_are_those_of_one_thread(expected):
    """The digest that the tests above compare does not depend on the number of threads."""
    alone = Embedder.from_pretrained(threads=1).encode_query(TEXTS)
    assert sha256(np.asarray(alone).tobytes()) == expected
