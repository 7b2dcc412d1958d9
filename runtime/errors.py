"""What moembed raises: one tree under `MoembedError`, each class also a subclass of the builtin it specializes.

Every message says what was asked, what was found, and what to do.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PACKAGE = str(Path(__file__).parent) + os.sep
_QUOTED = 120


def shown(value: object) -> str:
    """A value as an error quotes it: its `repr` in printable characters, cut to 120 of them."""
    try:
        text = repr(value)
    except Exception:  # a foreign object's own fault
        text = f"<{type(value).__name__}>"
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}… ({len(text):,} characters)"


def _restored(kind: type[Exception], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


def _reduce(self: Exception) -> tuple[Any, ...]:
    """Pickle what an error holds: an initializer that wants more than a message could not be called again."""
    return _restored, (type(self), self.args, self.__dict__)


class MoembedError(Exception):
    """Base of every error raised on purpose by moembed."""

    __reduce__ = _reduce


class InputError(MoembedError, ValueError):
    """A text or an argument that cannot be used: wrong dims, unknown prompt name, invalid Unicode, ..."""


class TextTooLongError(InputError):
    """A text has more tokens than the model reads and the policy is `overlong="error"`.

    Attributes:
        index: position of the first such text in the caller's order.
        tokens: its token count, prompt and special tokens included; of a text of many times the limit at least so many.
        limit: the most tokens the model reads.
        counted: the count in words, `"600 tokens"` or `"more than 4096 tokens"`.
    """

    def __init__(self, message: str, *, index: int, tokens: int, limit: int, counted: str) -> None:
        super().__init__(message)
        self.index, self.tokens, self.limit, self.counted = index, tokens, limit, counted


class BundleError(MoembedError, ValueError):
    """A bundle that is missing, incomplete, altered, of a foreign format, or unsafe to load."""


class CheckpointError(MoembedError, ValueError):
    """A checkpoint whose config or tensors are not the network that moembed implements."""


class SourceError(MoembedError, OSError):
    """A model that could not be found: no such folder, hub name, revision, or no network."""


class OutputError(MoembedError, OSError):
    """A destination that cannot be written, or that would overwrite something foreign."""


class ProviderError(MoembedError, RuntimeError):
    """An execution provider that was asked for and is not available."""


class VerificationError(MoembedError, RuntimeError):
    """A bundle that does not compute what it must; raised where a report is not asked for."""


class MissingExtraError(MoembedError, ImportError):
    """An optional package that is not installed or cannot be imported; the message holds the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str, problem: str = "is not installed") -> None:
        super().__init__(f'{purpose} needs {package}, which {problem}: pip install "moembed[{extra}]"')


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Turn a failed import of an optional package into the command that installs it.

    For example: `with extra("export", "moembed verify --against"): import torch`.

    Args:
        name: extra of moembed that installs the packages.
        purpose: what needs them; the error's sentence starts with it.

    Raises:
        MissingExtraError: an import failed.
    """
    try:
        yield
    except MissingExtraError:
        raise  # of a guard inside this one
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        if package == "moembed":
            raise  # a module of moembed itself is missing or broken
        problem = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        raise MissingExtraError(package, name, purpose, problem) from error


class MoembedWarning(UserWarning):
    """Base of every warning issued by moembed."""

    __reduce__ = _reduce


def warn(warning: MoembedWarning) -> None:
    """Issue a warning that points at the line which called moembed, however deep inside it is found."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)


class PromptWarning(MoembedWarning):
    """`encode` was called without a prompt on a model whose prompts are mandatory."""


class NativeWarning(MoembedWarning):
    """The package's native library is not there or cannot be used: the same results come later."""


class TelemetryWarning(MoembedWarning):
    """ONNX Runtime was imported before moembed could turn its telemetry off."""


class TruncationWarning(MoembedWarning):
    """Texts were cut to the model's limit because `overlong="truncate"` asked for it.

    Attributes:
        indices: positions of the texts that were cut, in the caller's order.
    """

    def __init__(self, message: str, indices: tuple[int, ...]) -> None:
        super().__init__(message)
        self.indices = indices
