"""Names of options in errors, and the lines that warnings point at."""

import inspect
import os
import re
import socket
import subprocess
import sys
import warnings

import pytest

from moembed import Embedder
from moembed.cli import main
from moembed.errors import InputError, PromptWarning, TruncationWarning
from moembed.server.settings import load_settings

LONG = "word " * 700


@pytest.fixture
def failing(capsys):
    """Run a command that fails; gives what it says."""

    def run(*argv):
        assert main([str(argument) for argument in argv]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        return err.removeprefix("moembed: error: ").strip()

    return run


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("embed", LONG), "pass --overlong truncate to cut it off"),
        (("embed", "a", "--dim", "999"), "--dim 999; expected 1 to 384"),
        (("embed", "a", "--dim", "0"), "--dim 0; expected"),
        (("embed", "a", "--threads", "0"), "--threads 0; expected an integer"),
        (("embed", "a", "--provider", ""), ""),
        (("similarity", "a", "b", "--dim", "999"), "--dim 999; expected"),
        (("similarity", LONG, "b"), "the model's limit is 512: shorten it"),
        (("similarity", "a", "b", "--task", "nope"), "no prompt named 'nope'"),
        (("search", __file__, LONG, "--no-cache"), "the model's limit is 512: shorten it"),
        (("serve", "--port", "99999"), "--port 99999; expected 0 (any free port) to 65535"),
        (("serve", "--port", "-1"), "expected 0 (any free port) to 65535"),
        (("serve", "--port", "http"), "--port 'http': expected"),
        (("serve", "--max-inputs", "many"), "--max-inputs 'many': expected"),
    ],
)
def test_errors_of_the_command_line_speak_of_its_options(failing, argv, said):
    message = failing(*argv)
    assert said in message
    assert not re.search(r"(overlong|truncate_dim|threads|precision|providers|prompt_name) ?=", message), message
    assert "None" not in message


def test_python_errors_speak_of_keywords(model):
    with pytest.raises(InputError, match="truncate_dim = 999; expected"):
        model.encode("a", truncate_dim=999, prompt="")
    with pytest.raises(InputError, match="overlong='truncate'"):
        model.encode(LONG, prompt="")


def line_of(caught):
    """The file and line that the one warning points at."""
    (warning,) = caught
    return warning.filename, warning.lineno


def here(offset=0):
    return __file__, inspect.currentframe().f_back.f_lineno + offset


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_a_truncation_warning_points_at_the_caller(model, method):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TruncationWarning)
        getattr(model, method)(LONG, overlong="truncate", **({"prompt": ""} if method == "encode" else {}))
        expected = here(-1)
    assert line_of(caught) == expected


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.encode("a"),
        lambda model: list(model.embed(["a"])),
        lambda model: model.token_embeddings("a"),
    ],
    ids=["encode", "embed", "token_embeddings"],
)
def test_a_prompt_warning_points_at_the_caller(model, call):
    fresh = Embedder(model.bundle, threads=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PromptWarning)
        call(fresh)
    assert line_of(caught) == (__file__, call.__code__.co_firstlineno)


def test_an_ipv6_address_in_brackets():
    assert load_settings({"host": "[::1]"}).host == "::1"
    assert load_settings({}, environ={"MOEMBED_SERVE_HOST": "[::]"}).host == "::"
    assert load_settings({"host": "localhost"}).host == "localhost"


def test_the_last_port():
    assert load_settings({"port": "65535"}).port == 65535
    with pytest.raises(InputError, match="port = 65536"):
        load_settings({}, environ={"MOEMBED_SERVE_PORT": "65536"})


def info(source, tmp_path, *more, **environment):
    command = [sys.executable, "-m", "moembed", "info", source, *more]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = clean | {"HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_name_that_is_no_folder_is_asked_for_once(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and not listening: connections are refused
        done = info("models/x", tmp_path, HF_ENDPOINT=f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert done.returncode == 2
    first, last = done.stderr.splitlines()
    assert first == "moembed: no folder models/x here: asking the hub for it"
    assert "the network was not reachable" in last
    assert "no folder models/x is here either" in last
    assert "Retry" not in done.stderr


@pytest.mark.parametrize("how", ["--offline", "HF_HUB_OFFLINE"])
def test_offline_stays_offline(tmp_path, how):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.1)
        endpoint = f"http://127.0.0.1:{listening.getsockname()[1]}"
        if how == "--offline":
            done = info("models/x", tmp_path, how, HF_ENDPOINT=endpoint)
        else:
            done = info("models/x", tmp_path, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
        with pytest.raises(TimeoutError):
            listening.accept()
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "there is no folder models/x here" in line
