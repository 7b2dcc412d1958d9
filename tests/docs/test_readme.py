"""The README is true: its Python gives the output it shows, its commands run, its names exist."""

import json
import re
import shlex
import subprocess

import pytest

from moembed import Embedder
from moembed.cli import main, parser
from support.folders import ROOT
from support.serving import serving

README = (ROOT / "README.md").read_text()
ADDRESS = "localhost:8080"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_first_python_block_prints_what_it_shows(capsys):
    kinds = [kind for kind, _ in BLOCKS]
    first = kinds.index("python")
    assert kinds[first + 1] == "text"
    exec(compile(BLOCKS[first][1], "README.md", "exec"), {})
    assert capsys.readouterr().out == BLOCKS[first + 1][1]


def test_the_other_python_blocks_run(monkeypatch):
    default = Embedder.from_pretrained()
    monkeypatch.setattr(Embedder, "from_pretrained", lambda *_a, **_k: default)
    for kind, code in BLOCKS:
        if kind == "python" and ADDRESS not in code:
            exec(compile(code, "README.md", "exec"), {"Embedder": Embedder})


def test_searches_answer_sensibly(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    first_screen = next(line for line in README.splitlines() if "moembed search" in line).split("/moembed ")[1]
    for command, answer in (
        (first_screen, "Over-long texts: an error"),
        ('search README.md "how do I run it on a GPU?"', "moembed[gpu]"),
        ('search README.md "which threads does it use?"', "It uses the CPUs the process may use"),
    ):
        assert main([*shlex.split(command), "-k", "1"]) == 0
        assert answer in capsys.readouterr().out


def shell_lines(start="moembed "):
    lines = [line for kind, code in BLOCKS if kind == "sh" for line in code.splitlines()]
    return [line for line in lines if line.startswith(start)]


def test_what_asks_a_server_is_answered(capsys, model):
    (command,) = shell_lines("moembed serve")
    given = parser().parse_args(shlex.split(command)[1:])
    with serving(task=given.task) as server:
        here = f"127.0.0.1:{server.port}"
        (curl,) = shell_lines("curl ")
        done = subprocess.run(["bash", "-c", curl.replace(ADDRESS, here)], capture_output=True, check=True, timeout=60)
        assert len(json.loads(done.stdout)["data"][0]["embedding"]) == 256
        for kind, code in BLOCKS:
            if kind == "python" and ADDRESS in code:
                exec(compile(code.replace(ADDRESS, here), "README.md", "exec"), {})
    (tokens,) = model.count_tokens(["Bake the bread for forty minutes."], prompt_name="document")
    assert capsys.readouterr().out == f"384 {tokens}\n"


@pytest.mark.parametrize("line", [line for line in shell_lines() if "nomic" not in line and "serve" not in line])
def test_shell_blocks_run(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(line)[1:]) == 0


@pytest.mark.parametrize("line", [line for line in shell_lines() if "nomic" in line])
def test_shell_blocks_that_need_the_hub_parse(line):
    assert parser().parse_args(shlex.split(line)[1:]).command in ("export", "verify", "evaluate")


def test_every_command_is_in_the_table():
    listed = re.findall(r"^\| `moembed (\w+)` \|", README, re.MULTILINE)
    (commands,) = (action.choices for action in parser()._subparsers._group_actions)
    assert listed == list(commands)


def test_files_that_are_named_exist():
    root = ROOT
    for path in re.findall(r"`?((?:tests|runtime|\.ci)/[\w./]+\w)", README):
        assert (root / path).exists(), path
