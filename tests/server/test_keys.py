"""API keys: empty and invalid keys stop the server from starting, and errors never quote a key."""

import json
import os
import socket
import subprocess
import sys

import pytest

from moembed.errors import InputError
from moembed.server.settings import Settings, load_settings
from support.serving import BODIES, serving

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "value", ["", " ", ",", " , ", f"{SECRET},", f",{SECRET}", f"{SECRET},,other", "\t", "\u200b", "\ufeff"]
)
def test_empty_keys_in_the_environment(value):
    with pytest.raises(InputError, match="api_keys in the environment: key ") as raised:
        load_settings({}, environ={"MOEMBED_SERVE_API_KEYS": value})
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "api_keys in .* is empty"),
        ('[""]', "key 1 of 1 is blank"),
        ('["  "]', "key 1 of 1 is blank"),
        (f'["{SECRET}", ""]', "key 2 of 2 is blank"),
        (f'["{SECRET}\\u200b"]', "non-printable"),
        (f'["{SECRET}\\n"]', None),
        (f'["{SECRET}\\nx"]', "non-printable"),
        (f'"{SECRET}"', "expected `array`"),
        ("[1]", "expected `str`"),
        ('""', "expected `array`"),
    ],
)
def test_empty_keys_in_a_toml_file(tmp_path, line, words):
    file = tmp_path / "serve.toml"
    file.write_text(f"api_keys = {line}\n", "utf-8")
    if words is None:
        assert load_settings({}, environ={}, file=file).keys == (SECRET,)
        return
    with pytest.raises(InputError, match=words) as raised:
        load_settings({}, environ={}, file=file)
    assert SECRET not in str(raised.value)


def test_empty_lists_do_not_fall_back_to_another_source(tmp_path):
    file, keys = tmp_path / "serve.toml", tmp_path / "keys"
    keys.write_text(SECRET)
    file.write_text(f'api_keys = ["{SECRET}"]\n')
    for environ in (
        {"MOEMBED_SERVE_API_KEYS": ""},
        {"MOEMBED_SERVE_API_KEYS": "", "MOEMBED_SERVE_API_KEYS_FILE": str(keys)},
    ):
        with pytest.raises(InputError, match="blank"):
            load_settings({}, environ=environ, file=file)


FILES = {
    "nothing": (b"", "contains no key"),
    "blank lines": (b" \r\n\n\t\n", "contains no key"),
    "comments": (b"# one\n  # two\n", "contains no key"),
    "a byte order mark alone": (b"\xef\xbb\xbf", "contains no key"),
    "UTF-16": (SECRET.encode("utf-16"), "not UTF-8"),
    "Latin-1": (b"schl\xfcssel", "not UTF-8"),
    "a zero": (b"s3cr3t\0", "line 1: key 1 of 1 contains a non-printable character"),
    "a zero-width space": ("# c\ns3cr3t\u200b\n".encode(), "line 2"),
    "a line separator, which would make two keys": ("s3cr3t\u2028x".encode(), "line 1"),
    "a megabyte and more": (b"x" * (2**20 + 1), "regular file of at most"),
}


@pytest.mark.parametrize("name", FILES)
def test_invalid_key_files(tmp_path, name):
    content, words = FILES[name]
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        _ = Settings(api_keys_file=str(file)).keys
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ("\ufeffone\r\ntwo\r\n".encode(), ("one", "two")),
        (b"one\rtwo", ("one", "two")),
        (b"  one  \n\n# two\nthr ee", ("one", "thr ee")),
        ("zweiter-schlüssel\n".encode(), ("zweiter-schlüssel",)),
        (b"one # two", ("one # two",)),
    ],
)
def test_key_files_of_various_editors(tmp_path, content, keys):
    file = tmp_path / "keys"
    file.write_bytes(content)
    assert Settings(api_keys=(" first ",), api_keys_file=str(file)).keys == ("first", *keys)


def test_special_files_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        for name in ("fifo", "socket", ".", "/dev/zero", "/dev/null"):
            with pytest.raises(InputError, match="not a regular file"):
                _ = Settings(api_keys_file=str(tmp_path / name)).keys
    for name in ("none", "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            _ = Settings(api_keys_file=str(tmp_path / name)).keys


def test_empty_key_does_not_disable_authentication(tmp_path):
    with pytest.raises(InputError, match="blank"), serving(api_keys=("",)):
        pass
    (tmp_path / "keys").write_bytes("\ufefffrom-file\r\n".encode())
    with serving(api_keys=(" k ",), api_keys_file=str(tmp_path / "keys")) as server:
        for given in ("Bearer ", "Bearer", "Bearer  ", "", "Bearer \t", "Bearer ,", "bearer", "Basic Og=="):
            assert server.post("/embed", BODIES["/embed"](["x"]), authorization=given).status == 401, given
        for key in ("k", "from-file"):
            assert server.post("/embed", BODIES["/embed"](["x"]), authorization=f"Bearer {key}").status == 200


@pytest.mark.parametrize(
    ("environ", "flags", "toml"),
    [
        ({"MOEMBED_SERVE_API_KEYS": " , "}, [], ""),
        ({"MOEMBED_SERVE_API_KEYS": ""}, ["--workers", "2"], ""),
        ({}, [], 'api_keys = [""]'),
        ({}, ["--api-keys-file", ""], ""),
        ({"MOEMBED_SERVE_API_KEYS_FILE": "/dev/null"}, [], ""),
    ],
)
def test_invalid_keys_stop_the_start(tmp_path, environ, flags, toml):
    (tmp_path / "serve.toml").write_text(toml)
    command = [
        sys.executable,
        "-m",
        "moembed",
        "serve",
        "--port",
        "0",
        "--config",
        str(tmp_path / "serve.toml"),
        *flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environ, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("moembed: error: api_keys")
    assert "Traceback" not in done.stderr
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(done.stderr.splitlines()[0])
