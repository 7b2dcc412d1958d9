"""Settings of the hub: its address, the token, the cache folder and the offline switches.

They are those of huggingface_hub, which comes with `tokenizers` and reads its variables when it is imported. The offline
switches are read at every call. Nothing else here is imported before a hub name is opened.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from moembed.errors import SourceError, extra, shown

DEFAULT_ENDPOINT = "https://huggingface.co"
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
# Caches of other programs in huggingface_hub's layout, or with a folder `owner_name` per model.
_CACHE_VARIABLES = ("TRANSFORMERS_CACHE", "SENTENCE_TRANSFORMERS_HOME")
_TRUE = ("1", "on", "yes", "true")


@dataclass(frozen=True)
class Token:
    """Access token of the hub.

    Attributes:
        value: the token; it is not part of the `repr`.
        origin: the variable or the file that it came from.
    """

    value: str
    origin: str

    def __repr__(self) -> str:
        return f"Token(origin={self.origin!r})"


def endpoint() -> str:
    """Return the address of the hub, without a slash at its end: `HF_ENDPOINT`, else the public one.

    Raises:
        SourceError: `HF_ENDPOINT` is not an address.
    """
    found = str(_constants().ENDPOINT) or DEFAULT_ENDPOINT
    address = urlsplit(found)
    try:
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # from a port that is none
        usable = False
    if not usable:
        raise SourceError(f"HF_ENDPOINT = {shown(found)} is not the address of a hub, such as {DEFAULT_ENDPOINT}")
    if "@" in address.netloc:
        raise SourceError(
            f"HF_ENDPOINT has a user name or a password in front of {address.hostname}, which is not supported: pass a token in "
            "HF_TOKEN"
        )
    return found


def offline() -> str | None:
    """Return the variable that forbids the network now; None if there is none."""
    return next((name for name in OFFLINE_VARIABLES if os.environ.get(name, "").strip().lower() in _TRUE), None)


def token() -> Token | None:
    """Return the user's token; None if there is none, or `HF_HUB_DISABLE_IMPLICIT_TOKEN` forbids to send it.

    Raises:
        SourceError: the token cannot be read, or cannot be sent in a header.
    """
    constants = _constants()
    if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None
    from huggingface_hub import get_token

    file = Path(constants.HF_TOKEN_PATH)
    try:
        value = get_token()
    except (
        Exception
    ) as error:  # a file that is not text, or a failed exchange of tokens, which raises errors of the HTTP library
        raise SourceError(
            f"the token of the hub cannot be read ({type(error).__name__}); see HF_TOKEN and {file}"
        ) from error
    if not value:
        return None
    names = [name for name in TOKEN_VARIABLES if "".join(os.environ.get(name, "").split()) == "".join(value.split())]
    origin = names[0] if names else f"the file {file}" if os.path.exists(file) else "huggingface_hub"  # noqa: PTH110
    if not value.isascii() or not value.isprintable() or " " in value:
        raise SourceError(f"the token in {origin} has characters that no token has: copy it again, or remove it")
    return Token(value, origin)


def hub_cache(repo: str, cache_dir: Path | None) -> Path:
    """Return the folder of huggingface_hub's cache.

    Args:
        repo: what is to be cached, for the error.
        cache_dir: a folder to use instead; None for `HF_HUB_CACHE`.

    Raises:
        SourceError: it is in the home folder, and there is none.
    """
    try:
        return (cache_dir or Path(_constants().HF_HUB_CACHE)).expanduser()  # otherwise a folder named "~" would be made
    except RuntimeError:
        raise SourceError(
            f"{repo} cannot be cached: the cache is in the home folder, and this user has none; set HF_HOME or HOME, or pass a "
            "cache folder"
        ) from None


def cache_folders(cache_dir: Path | None) -> list[Path]:
    """Return the folders in which programs of this user keep models from the hub; some may not exist."""
    named = [os.environ.get(name, "") for name in _CACHE_VARIABLES]
    found = []
    for folder in (cache_dir or Path(_constants().HF_HUB_CACHE), *(Path(name) for name in named if name)):
        try:
            found.append(folder.expanduser())
        except RuntimeError:
            continue
    return list(dict.fromkeys(found))


def timeout() -> float | None:
    """Return the seconds that `HF_HUB_DOWNLOAD_TIMEOUT` allows without data; None if it is not set."""
    text = os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise SourceError(f"HF_HUB_DOWNLOAD_TIMEOUT = {shown(text)}; expected a number of seconds")
    return seconds


def _constants() -> Any:
    with extra("cpu", "A model of a hub"):
        try:
            from huggingface_hub import constants
        except ValueError as error:  # a number in a variable, which it converts when it is imported
            raise SourceError(
                f"huggingface_hub cannot read its variables ({error}): correct the HF_… variable"
            ) from error
    return constants
