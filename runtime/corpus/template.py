r"""Templates that make one text of several fields, such as `{title}\n{text}`.

`\n`, `\t`, `\r` and `\\` are escapes, `{{` and `}}` are braces. A name is that of a field, as it stands: attributes, indices and
formats are refused. A missing field is empty; a row that has none of the fields is rejected. Values are inserted as they are:
braces in them mean nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moembed.errors import InputError, shown

_PART = re.compile(r"\\(?P<escape>.?)|(?P<open>\{\{)|(?P<close>\}\})|\{(?P<name>[^{}]*)\}|(?P<brace>[{}])", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_NOT_IN_NAMES = frozenset(".[]!:()")


@dataclass(frozen=True)
class Template:
    """Template.

    Attributes:
        parts: texts and names of fields in turn, a text first and last.
    """

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a template.

        Raises:
            InputError: an unknown escape, a brace alone, no field, or a name that is more than a name.
        """
        parts, literal, at = [], "", 0
        for match in _PART.finditer(text):
            literal += text[at : match.start()]
            at = match.end()
            if match["escape"] is not None:
                if match["escape"] not in _ESCAPES:
                    raise _wrong(text, f"the escape {match[0]}; known are \\n, \\t, \\r and \\\\")
                literal += _ESCAPES[match["escape"]]
            elif match["open"] or match["close"]:
                literal += match[0][0]
            elif match["brace"]:
                raise _wrong(text, f"a single {match[0]}; write {match[0] * 2} for the character")
            else:
                name = match["name"]
                if not name or _NOT_IN_NAMES & set(name):
                    raise _wrong(text, f"{match[0]}; expected the name of a field alone, such as {{title}}")
                parts += [literal, name]
                literal = ""
        if not parts:
            raise _wrong(text, "no field; expected one, such as {text}")
        return cls((*parts, literal + text[at:]))

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, each once."""
        return tuple(dict.fromkeys(self.parts[1::2]))

    def render(self, values: Mapping[str, Any]) -> tuple[str | None, str]:
        """Return the text of a row, or None and the reason why it has none.

        Args:
            values: field -> string, number, boolean, or None if it is missing.
        """
        # NaN is how pandas writes a missing value.
        known = {name: None if (value := values.get(name)) != value else value for name in self.fields}
        if all(value is None for value in known.values()):
            return None, f"none of the template's fields is there: {', '.join(known)}"
        for name, value in known.items():
            if isinstance(value, dict | list):
                return (
                    None,
                    f"the template's field {name!r} is {'an array' if isinstance(value, list) else 'an object'}",
                )
        return "".join(part if index % 2 == 0 else _spelled(known[part]) for index, part in enumerate(self.parts)), ""


def _spelled(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _wrong(text: str, found: str) -> InputError:
    return InputError(f"template = {shown(text)}: found {found}")
