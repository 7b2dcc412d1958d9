"""Interrupted and killed pulls: they end at once, leave nothing half-made, and go on."""

import re
import signal
import subprocess
import sys
import time

import pytest

from moembed.cli.interrupts import Interrupted, prompt_interrupts
from moembed.store.kept import model_folder
from support.hub_server import Fault, Hub
from support.pulls import WEIGHTS, Place

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals of POSIX")
_SECONDS = 4  # a second on a machine that does nothing else
HOLD = """
import sys
from pathlib import Path
from moembed.store.ownership import owning
folder = Path(sys.argv[1]); folder.mkdir(parents=True)
with owning(folder, lambda *_: None):
    print("owned", flush=True)
    sys.stdin.read()
"""


def when(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(process, number):
    """Send a signal, and return what the process printed; it ends at once."""
    started = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - started < _SECONDS
    assert process.returncode == 128 + number
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("moembed: interrupted; run the same command again to go on with acme/ft")
    return err


@pytest.fixture
def stalled(checkpoint, template, tmp_path):
    """Home, and a hub that sends half of the weights and then nothing."""
    with Hub() as hub:
        hub.add("acme/ft", checkpoint)
        hub.faults[WEIGHTS] = Fault("stall", keep=5_000_000)
        yield Place(tmp_path, hub, template=template)


def partial_of(place):
    return sum(path.stat().st_size for path in place.root.rglob(f"{WEIGHTS}.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_a_signal_during_the_download(stalled, number):
    """N09, N01: the part that was sent stays. N03: it is listed, and not as a model."""
    process = stalled.start("pull", "acme/ft")
    when(lambda: partial_of(stalled) == 5_000_000)
    ended(process, number)
    assert partial_of(stalled) == 5_000_000
    listed = stalled.run("models").stdout
    assert "incomplete download; moembed pull goes on with it" in listed
    assert "kept" not in listed
    stalled.hub.faults.clear()
    before = len(stalled.hub.stored)
    assert stalled.run("pull", "acme/ft").returncode == 0
    assert [request.range for request in stalled.hub.stored[before:] if request.range] == ["bytes=5000000-"]
    assert partial_of(stalled) == 0


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_conversion(checkpoint, template, tmp_path, number):
    """N09: no half bundle."""
    place = Place(tmp_path, template=template)
    process = place.start("pull", checkpoint, "-o", tmp_path / "out", stderr=subprocess.PIPE)
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "writing" in line or "comparing" in line:
            break
    process.send_signal(number)
    started = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - started < _SECONDS
    assert process.returncode == 128 + number, lines
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("moembed: interrupted; run the same command again")
    assert not (tmp_path / "out").exists()


def test_a_signal_while_it_waits_for_another_process(tmp_path):
    """N09, N33"""
    place = Place(tmp_path)
    place.more["HF_ENDPOINT"] = "http://127.0.0.1:1"
    name = "nomic-ai/nomic-embed-text-v2-moe"
    folder = place.data / "models" / "nomic-ai--nomic-embed-text-v2-moe"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "owned\n"
    process = place.start("pull", name)
    line = process.stderr.readline()
    assert line.startswith(f"moembed: waiting for process {holder.pid} on ")
    assert f"which converts {name} (starting; {folder / 'lock'})" in line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (
        err
        == f"moembed: interrupted; run the same command again to go on with {name}: finished parts of the download are kept\n"
    )
    holder.communicate("")


@pytest.mark.long
def test_three_killed_pulls_leave_one_partial(stalled):
    """N03"""
    for _ in range(3):
        process = stalled.start("pull", "acme/ft")
        when(lambda: partial_of(stalled) == 5_000_000)
        process.kill()
        process.wait()
    assert len(list(stalled.root.rglob(f"{WEIGHTS}.part"))) == 1
    listed = stalled.run("models").stdout
    assert listed.count("incomplete download") == 1
    assert re.search(r"^acme/ft  -  \d+\.\d MB ", listed, re.MULTILINE), "its size"
    removed = stalled.run("models", "--remove", "acme/ft")
    assert removed.returncode == 0, removed.stderr
    assert not (stalled.data / "models" / "acme--ft").exists()


def test_what_a_signal_cannot_interrupt_is_ended(tmp_path):
    """N09: a signal handler of Python waits for the call that runs, such as a product of matrices."""
    code = (
        "import numpy as np\nfrom moembed.cli.interrupts import prompt_interrupts\n"
        "with prompt_interrupts('acme/ft'):\n    a = np.ones((6000, 6000))\n    print('in', flush=True)\n"
        "    while True:\n        a @ a  # for seconds\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    time.sleep(0.3)
    ended(process, signal.SIGTERM)


@pytest.mark.long
def test_a_thread_ends_with_the_program(stalled):
    """N09: the call is made from a thread; the interpreter would wait for it."""
    stalled.hub.faults[WEIGHTS] = Fault("trickle", keep=5_000_000)
    code = (
        "import threading\nfrom moembed import Embedder\n"
        "threading.Thread(target=lambda: Embedder.from_pretrained('acme/ft')).start()\n"
        "input()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=stalled.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    when(lambda: partial_of(stalled) > 5_000_000)
    started = time.monotonic()
    process.communicate("\n", timeout=30)
    assert time.monotonic() - started < _SECONDS
    assert partial_of(stalled) > 5_000_000


def test_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(Interrupted) as caught, prompt_interrupts("acme/ft"):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 143
    assert {number: signal.getsignal(number) for number in before} == before
    assert model_folder("acme/ft") is not None
