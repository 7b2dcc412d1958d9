"""Blocks that benchmarks write into Markdown pages: what stands between two comments, of which the first names the command."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        path: the page.
        name: of the block; a page has each once.
        command: what writes it.
    """

    path: Path
    name: str
    command: str

    def shown(self) -> str:
        """What stands in the page.

        Raises:
            ValueError: the page lacks one of the comments.
        """
        text = self.path.read_text("utf-8")
        return text[text.index(self._first) + len(self._first) : text.index(self._last)]

    def write(self, content: str) -> None:
        """Replace what stands in the page; nothing else changes.

        Raises:
            ValueError: the page lacks one of the comments.
        """
        old = self._first + self.shown() + self._last
        text = self.path.read_text("utf-8")
        self.path.write_text(text.replace(old, self._first + content + self._last), "utf-8")

    @property
    def _first(self) -> str:
        return f"<!-- {self.name}: {self.command} -->\n"

    @property
    def _last(self) -> str:
        return f"<!-- end of {self.name} -->\n"
