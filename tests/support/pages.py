"""The Markdown pages of the repository, as tests read them: code blocks, commands, links and names in code.

The label of a code block says what a test does with it:

* `python`: it runs; the blocks of a page share their names. What it prints must stand in a `text` block right behind it.
* `sh`: it runs in a shell, in a folder that the blocks of a page share; a `text` block behind it must be its output.
* `bash`: its commands are parsed and not run: they need the network, a GPU, minutes, or go on until they are stopped.

A block that asks `localhost:8080` or `127.0.0.1:8080` is answered by a server of the test.
"""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from markdown.extensions.toc import slugify

from support.folders import ROOT

PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
ADDRESS = re.compile(r"(?:localhost|127\.0\.0\.1):8080")
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_OUTPUT = re.compile(r"\s*^ *```text\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^)\s]+)(?: \"[^\"]*\")?\)")
_WRAPPERS = {"strace", "opentelemetry-instrument", "systemd-run", "nice", "env"}


@dataclass(frozen=True)
class Block:
    """One code block, and the `text` block right behind it, or None."""

    language: str
    code: str
    output: str | None

    @property
    def asks_server(self) -> bool:
        return ADDRESS.search(self.code) is not None


@dataclass(frozen=True)
class Page:
    """One page."""

    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def prose(self) -> str:
        """The page without its code blocks."""
        return _FENCE.sub("", self.text)

    def blocks(self, *languages: str) -> list[Block]:
        """Its code blocks, of some languages or of all, in order."""
        text, found = self.text, []
        for match in _FENCE.finditer(text):
            behind = _OUTPUT.match(text, match.end())
            output = textwrap.dedent(behind[1]) if behind else None
            found.append(Block(match[2], textwrap.dedent(match[3]), output))
        return [block for block in found if not languages or block.language in languages]

    def commands(self) -> list[list[str]]:
        """The commands of its shell blocks, each as its words."""
        return [words for block in self.blocks("sh", "bash") for words in commands(block.code)]

    def code_spans(self) -> list[str]:
        """What stands between backticks in the prose."""
        return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", self.prose)

    def links(self) -> list[str]:
        """Targets of links and pictures that are not URLs."""
        return [target for target in _LINK.findall(self.prose) if not re.match(r"[a-z]+:", target)]

    def anchors(self) -> set[str]:
        """The anchors of its headings."""
        titles = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {slugify(re.sub(r"[`*]|\]\([^)]*\)|\[", "", title), "-") for title in titles}


def pages() -> list[Page]:
    """Every page that tests check."""
    return [Page(path) for path in PAGES]


def page(name: str) -> Page:
    """The page at a path of the repository."""
    return Page(ROOT / name)


def commands(code: str) -> Iterator[list[str]]:
    """Split shell code into commands: words without redirections, variables in front and wrappers such as strace."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;()"):
                if plain := _plain(words):
                    yield plain
                words, redirected = [], False
            elif set(word) <= set("<>&"):
                redirected = True
                if words and words[-1].isdigit():  # 2>&1
                    words.pop()
            elif redirected:
                redirected = False
            else:
                words.append(word)


def _plain(words: list[str]) -> list[str]:
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    if words and words[0] in _WRAPPERS and "moembed" in words:
        words = words[words.index("moembed") :]
    return [PurePosixPath(words[0]).name, *words[1:]] if words else []
