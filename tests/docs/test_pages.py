"""README and the pages in docs/ are true: their code runs, their commands parse, what they name exists."""

import argparse
import builtins
import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from moembed import Embedder, errors
from moembed.cli import parser
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from moembed.server import errors as server_errors
from moembed.server.settings import PREFIX, Settings
from support.folders import ROOT
from support.pages import ADDRESS, commands, page, pages
from support.serving import serving
from support.sources import modules

every_page = pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
# Bundles that examples make or expect; the built-in model stands for them.
PLACEHOLDERS = {"nomic-moe", "nomic-moe-int8", "nomic-ai/nomic-embed-text-v2-moe"}
# Options of other programs that pages name.
FOREIGN = {
    "--preload",
    "--cpuset-cpus",
    "--cpus",
    "--ulimit",
    "--exclude-module",
    "--collect-all",
    "--strict",
    "--force-reinstall",
}
FOREIGN |= {"--no-deps", "--upgrade", "--json", "--detach-sign", "--cache-clear"}
# Pages whose Python needs packages that moembed's own tests do not install; `pytest -m interop` and `pytest -m engines` run it.
ELSEWHERE = {"docs/interop.md", "docs/scale.md", "docs/stores.md"}
KUBERNETES = {"MOEMBED_SERVE_SERVICE_HOST"}  # what it sets for a Service, which moembed ignores


@pytest.fixture(scope="module")
def here():
    """Where the server listens that answers the examples."""
    with serving() as running:
        yield f"127.0.0.1:{running.port}"


@pytest.fixture
def address(request):
    """An example with the address of the test's server in it; the server starts when one asks for it."""

    def replaced(block):
        return ADDRESS.sub(request.getfixturevalue("here"), block.code) if block.asks_server else block.code

    return replaced


@every_page
def test_python_runs_and_prints_what_is_shown(page, address, monkeypatch, tmp_path):
    if page.name in ELSEWHERE:
        pytest.skip("run by pytest -m interop or pytest -m engines")
    monkeypatch.chdir(tmp_path)
    opened = Embedder.from_pretrained.__func__

    def from_pretrained(cls, source=None, **options):
        return opened(cls, None if source in PLACEHOLDERS else source, **options)

    monkeypatch.setattr(Embedder, "from_pretrained", classmethod(from_pretrained))
    names = {"__name__": page.name}
    for number, block in enumerate(page.blocks("python")):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(address(block), f"{page.name}, Python block {number}", "exec"), names)
        assert printed.getvalue() == (block.output or ""), block.code


@every_page
@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_shell_runs(page, address, tmp_path):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    for block in page.blocks("sh"):
        if f"{VARIABLE}=" in block.code and usable_kernels() == (PORTABLE,):
            continue  # there is no native library here to choose from
        done = subprocess.run(
            ["bash", "-ec", address(block)],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, (block.code, done.stderr)
        if block.output is not None:
            assert done.stdout == block.output


@every_page
def test_every_command_parses(page):
    for words in page.commands():
        program, *arguments = words
        if program == "moembed":
            assert parses(arguments), f"{page.name}: {' '.join(words)}"
        elif program == "pytest":
            check_pytest(arguments)
        elif program in ("python", "python3") and arguments[:1] == ["-m"] and arguments[1].startswith("moembed"):
            source = module_source(arguments[1])
            assert all(f'"{option}"' in source for option in options_in(arguments)), words
        elif program in ("python", "python3") and arguments[0].endswith(".py"):
            script = ROOT / arguments[0]
            assert script.is_file(), arguments[0]
            for option in options_in(arguments):
                assert f'"{option}"' in script.read_text("utf-8"), (arguments[0], option)
        elif program == "pip":
            for extra in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
                assert set(extra.split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def parses(arguments):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            parser().parse_args(arguments)
        except SystemExit as end:
            return end.code == 0
    return True


def check_pytest(arguments):
    marks = {line.partition(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    for before, word in zip(["", *arguments], arguments, strict=False):
        if before == "-m":
            assert set(re.findall(r"\w+", word)) - {"not", "and", "or"} <= marks, word
        if word.startswith("tests"):
            assert (ROOT / word).exists(), word


def options_in(words):
    return [word.partition("=")[0] for word in words if word.startswith("--") and word != "--"]


def module_source(module):
    spec = importlib.util.find_spec(module)
    if spec.submodule_search_locations:  # a package
        spec = importlib.util.find_spec(f"{module}.__main__")
    return Path(spec.origin).read_text("utf-8")


@cache
def known_options():
    found = set(FOREIGN)
    todo = [parser()]
    while todo:
        one = todo.pop()
        for action in one._actions:
            found.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                todo += action.choices.values()
    scripts = [
        *(ROOT / "tests" / "benchmarks").glob("*.py"),
        *(ROOT / ".ci").glob("*.py"),
        ROOT / "tests" / "conftest.py",
    ]
    scripts += [
        ROOT / "runtime" / "native" / "build.py",
        ROOT / "export" / "templates.py",
        *(ROOT / "models" / "train").rglob("*.py"),
    ]
    for script in scripts:
        found.update(re.findall(r'"(--[a-z][\w-]*)"', script.read_text("utf-8")))
    return found


@every_page
def test_every_option_and_variable_that_is_named_exists(page):
    for span in page.code_spans():
        assert set(options_in(span.split())) <= known_options(), f"{page.name}: `{span}`"
        if span.startswith("moembed ") and (command := span.split()[1]).isalpha():
            (commands_,) = (action.choices for action in parser()._subparsers._group_actions)
            assert command in commands_, f"{page.name}: `{span}`"
    settings = {PREFIX + name.upper() for name in Settings.__dataclass_fields__}
    unknown = set(re.findall(r"MOEMBED_[A-Z_]+[A-Z]", page.text)) - settings - KUBERNETES - variables()
    assert not unknown, page.name


@cache
def variables():
    """Environment variables that the sources read, and prefixes of some."""
    files = [
        ROOT / "setup.py",
        *(ROOT / ".ci").iterdir(),
        ROOT / "tests" / "conftest.py",
        *modules().values(),
    ]
    text = "".join(file.read_text("utf-8") for file in files if file.is_file())
    return set(re.findall(r"MOEMBED_[A-Z_]+[A-Z]", text))


@every_page
def test_every_file_and_error_that_is_named_exists(page):
    for span in page.code_spans():
        if (
            path := re.match(r"(?:tests|runtime|export|models|quantize|docs|\.ci)/[\w./-]*\w", span)
        ) and "*" not in span:
            assert (ROOT / path[0]).exists(), f"{page.name}: {path[0]}"
        for name in re.findall(r"(?<![\w.])(?:moembed\.errors\.)?([A-Z]\w+(?:Error|Warning))\b", span):
            assert any(hasattr(module, name) for module in (errors, server_errors, builtins)), f"{page.name}: {name}"


@every_page
def test_every_link_leads_somewhere(page):
    for target in page.links():
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in type(page)(file).anchors(), f"{page.name}: {target}"


def test_shell_code_is_split_into_commands():
    code = 'A=1 .venv/bin/moembed embed "a b" -f npy > x && strace -f moembed info 2>/dev/null | cat\n'
    code += "moembed \\\n  doctor # words"
    assert list(commands(code)) == [
        ["moembed", "embed", "a b", "-f", "npy"],
        ["moembed", "info"],
        ["cat"],
        ["moembed", "doctor"],
    ]


def test_an_error_in_a_page_is_noticed(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("# A `b` c\n\n```python\nprint(1)\n```\n```text\n1\n```\n[x](y.md#z) `moembed embed --nothing`\n")
    one = type(page("README.md"))(path)
    (block,) = one.blocks("python")
    assert (block.output, one.links(), one.anchors()) == ("1\n", ["y.md#z"], {"a-b-c"})
    assert options_in(one.code_spans()[1].split()) == ["--nothing"]
    assert "--nothing" not in known_options()
    assert not parses(["embed", "--nothing"])
