"""Addresses of stores, such as `gs://bucket/file`, told from local paths."""

import re

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(name: str) -> str | None:
    """Return the scheme of an address, such as `gs`; None for a local path."""
    found = _SCHEME.match(name)
    return found[1] if found else None
