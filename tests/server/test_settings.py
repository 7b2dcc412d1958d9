"""Settings of `moembed serve`, and the server as a process."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from dataclasses import fields

import pytest

from moembed.cli import main, parser
from moembed.errors import InputError
from moembed.server.settings import Settings, load_settings
from support.serving import Server, wait_until


def test_flags_override_the_environment_which_overrides_the_file(tmp_path):
    file = tmp_path / "serve.toml"
    file.write_text('port = 1\nworkers = 2\nmodel = ["a=x", "b=y"]\ncall_tokens = 512\noffline = true\n')
    environ = {
        "MOEMBED_SERVE_WORKERS": "3",
        "MOEMBED_SERVE_PORT": "2",
        "MOEMBED_SERVE_CORS_ORIGINS": "http://a, http://b",
    }
    settings = load_settings({"port": "3"}, environ=environ | {"PATH": "/bin"}, file=file)
    assert (settings.port, settings.workers, settings.call_tokens) == (3, 3, 512)
    assert settings.model == ("a=x", "b=y")
    assert settings.cors_origins == ("http://a", "http://b")
    assert settings.offline is True
    assert load_settings({}, environ={}) == Settings()


@pytest.mark.parametrize(
    ("flags", "environ", "words"),
    [
        ({"port": "many"}, {}, "port = 'many' in the command line"),
        ({}, {"MOEMBED_SERVE_PORTS": "1"}, "unknown setting ports in the environment; the settings are model, host"),
        (
            {},
            {"MOEMBED_SERVE_TASK": "x", "MOEMBED_SERVE_OVERLONG": "cut"},
            "overlong = 'cut' in the environment: invalid enum",
        ),
        ({"workers": 0}, {}, "workers = 0 in the command line; expected at least 1"),
        ({"queue_tokens": "-5"}, {}, "queue_tokens = -5"),
        ({"body_timeout": "nan"}, {}, "body_timeout = nan"),
    ],
)
def test_invalid_settings(flags, environ, words):
    with pytest.raises(InputError, match=re.escape(words)):
        load_settings(flags, environ=environ)


def test_invalid_files(tmp_path):
    file = tmp_path / "serve.toml"
    for text, words in (
        ("port =", "as TOML"),
        ("prot = 1\n", "unknown setting prot in"),
        ('port = "x"\n', "port = 'x' in"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=words):
            load_settings({}, environ={}, file=file)
    with pytest.raises(InputError, match="cannot be read"):
        load_settings({}, environ={}, file=tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        _ = Settings(api_keys_file=str(tmp_path / "none")).keys


def test_every_setting_except_keys_is_a_flag():
    given = parser().parse_args(["serve", *(f"--{s.name.replace('_', '-')}={_sample(s)}" for s in _flags())])
    settings = load_settings({s.name: getattr(given, s.name) for s in _flags()}, environ={})
    assert all(getattr(settings, s.name) != s.default for s in _flags())
    assert {s.name for s in fields(Settings)} - {s.name for s in _flags()} == {
        "offline",
        "accept_token_ids",
        "api_keys",
    }


def _flags():
    return [s for s in fields(Settings) if s.metadata["flag"] and not isinstance(s.default, bool)]


def _sample(setting):
    return {"overlong": "mean", "log_level": "error"}.get(setting.name, "7")


@contextlib.contextmanager
def process(*arguments, **environ):
    """Run the server on a free port or a unix socket; yield the process, a `Server`, and its log lines (filled at the end)."""
    lines = []
    command = [sys.executable, "-m", "moembed", "serve", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environ) as running:
        try:
            lines.append(json.loads(running.stderr.readline()))
            port = re.search(r", (\d+)\)", lines[0]["address"])
            server = Server(int(port[1]) if port else 0)
            if port:
                wait_until(lambda: server.get("/ready").status == 200)
            yield running, server, lines
            running.send_signal(signal.SIGTERM)
            lines += map(json.loads, running.stderr.read().splitlines())
            assert running.wait(20) == 0
        finally:
            running.kill()


def test_process_stops_cleanly():
    with process("--threads", 1, MOEMBED_SERVE_TASK="query") as (_, server, lines):
        assert server.post("/v1/embeddings", {"model": "moembed", "input": "hello"}).status == 200
    assert lines[0]["event"] == "listening"
    assert [line["status"] for line in lines if line["event"] == "request" and line["path"] == "/v1/embeddings"] == [
        200
    ]


def test_a_unix_socket(tmp_path):
    path = tmp_path / "moembed.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()

    def ask():
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/ready")
        return connection.getresponse().status

    with process("--unix-socket", path, "--threads", 1):
        wait_until(lambda: ask() == 200)
    assert not path.exists()


def test_workers_share_the_socket_the_weights_and_the_metrics():
    with process("--workers", 2, "--threads", 1) as (running, server, _):
        body = {"model": "moembed:query", "input": ["hello", "there"]}
        # Each on a new connection, so that both workers get some.
        answers = [server.post("/v1/embeddings", body) for _ in range(30) if server.get("/ready").status == 200]
        assert {answer.status for answer in answers} == {200}
        assert len({answer.body for answer in answers}) == 1
        assert server.metric("moembed_texts_total") == 2 * len(answers)
        wait_until(lambda: server.metric("moembed_workers") == 2)
        children = subprocess.run(
            ["ps", "-ww", "--ppid", str(running.pid), "-o", "pid=,args="], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        workers = [int(line.split()[0]) for line in children if "spawn_main" in line]
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        # The replacement is counted, the dead worker is not.
        wait_until(lambda: server.metric("moembed_queue_texts") == 0 and server.metric("moembed_workers") == 2)
        assert server.metric("moembed_texts_total") == 2 * len(answers)


def test_startup_errors_are_immediate(tmp_path, capsys):
    for arguments, words in (
        (["--model", str(tmp_path / "none")], "no folder"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1:8080"),
        (["--unix-socket", "/nowhere/x.sock"], "cannot listen on /nowhere/x.sock"),
        (["--api-keys-file", str(tmp_path / "none")], "api_keys_file"),
        (["--config", str(tmp_path / "none.toml")], "cannot be read as TOML"),
        (["--task", "poetry", "--port", "0"], "no prompt for the task 'poetry'"),
        (["--workers", "2", "--task", "poetry", "--port", "0"], "no prompt for the task 'poetry'"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "moembed", "serve", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2, arguments
        assert words in done.stderr
    assert main(["serve", "--queue-tokens", "0"]) == 2
    assert "--queue-tokens 0" in capsys.readouterr().err
