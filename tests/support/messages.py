"""The texts in the package's Python sources, with `…` for what is filled in: what error messages are made of."""

import ast
import re
from functools import cache

from support.sources import modules


@cache
def templates() -> frozenset[str]:
    """Every string and f-string of the package, adjacent ones joined as Python joins them."""
    found = set()
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.add("".join(map(str, parts)))
    return frozenset(found)


def is_message(text: str) -> bool:
    """Whether a text, in which `…` stands for what varies, is a message of the package or the greater part of one."""
    wanted = re.sub(r"\s+", " ", text.strip())
    return any(wanted in template and 2 * len(wanted) >= len(template) for template in templates())
