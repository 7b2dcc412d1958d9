"""The offline switches, in the shell and by os.environ after the import (N16)."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from moembed.errors import SourceError
from moembed.hub.fetch import fetch

SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_LATE = """
import os, sys
import moembed
import huggingface_hub.constants
os.environ[sys.argv[1]] = sys.argv[2]
from moembed.models.locate import locate
try:
    locate("nomic-ai/nomic-embed-text-v2-moe")
except moembed.MoembedError as error:
    print(error)
"""
_COMMAND = "from moembed.cli import main; import sys; sys.exit(main(['embed', 'x', '-m', 'acme/model', *sys.argv[1:]]))"


@pytest.mark.parametrize("variable", SWITCHES)
@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_a_switch_is_read_at_the_call(served, tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    started = time.monotonic()
    with pytest.raises(
        SourceError, match="config.json of acme/model at revision main is not in the cache and the network was not"
    ):
        fetch("acme/model", ["config.json"], revision=None, into=tmp_path / "into")
    assert time.monotonic() - started < 1
    assert served.requests == []
    monkeypatch.setenv(variable, "0")
    fetch("acme/model", ["config.json"], revision=None, into=tmp_path / "into")
    assert served.requests != []


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(
    "how", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "--offline", "late HF_HUB_OFFLINE", "late TRANSFORMERS_OFFLINE"]
)
def test_offline_opens_no_socket(tmp_path, how):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": "https://hub.invalid"}
    trace = tmp_path / "trace"
    command = [sys.executable, "-c", _COMMAND]
    if how.startswith("late "):
        command = [sys.executable, "-c", _LATE, how.removeprefix("late "), "1"]
    elif how == "--offline":
        command.append(how)
    else:
        environment[how] = "1"
    strace = ["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto", "-o", str(trace)]
    done = subprocess.run([*strace, *command], env=environment, capture_output=True, text=True, timeout=120)
    said = done.stdout if how.startswith("late ") else done.stderr
    late = "is not in the cache and the network was not allowed"
    assert (
        late if how.startswith("late ") else "and the network is not allowed: run moembed pull acme/model"
    ) in said, done.stderr
    assert "Traceback" not in done.stderr
    calls = [
        line for line in trace.read_text().splitlines() if "socket(" in line or "connect(" in line or "sendto(" in line
    ]
    assert calls == []
