"""Errors and warnings of moembed: one tree under `MoembedError`; each class also derives from the builtin it specializes.

Messages say what was expected, what was found, and what to do.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PACKAGE = str(Path(__file__).parent) + os.sep
_MAX_SHOWN = 120  # characters


def shown(value: object) -> str:
    """Format a value for an error: its `repr` in at most 120 printable characters."""
    try:
        text = repr(value)
    except Exception:  # raised by the object itself
        text = f"<{type(value).__name__}>"
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}… ({len(text):,} characters)"


def _restored(kind: type[Exception], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


def _reduce(self: Exception) -> tuple[Any, ...]:
    """Pickle the attributes of an error: unpickling cannot call an initializer with more arguments than a message."""
    return _restored, (type(self), self.args, self.__dict__)


class MoembedError(Exception):
    """Base of all errors that moembed raises intentionally."""

    __reduce__ = _reduce


class InputError(MoembedError, ValueError):
    """Unusable text or argument: wrong dimensions, unknown prompt name, invalid Unicode, ..."""


class TextTooLongError(InputError):
    """Text with more tokens than the model's limit, under the policy `overlong="error"`.

    Attributes:
        index: position of the first such text in the caller's order.
        tokens: its number of tokens, prompt and special tokens included; a lower bound if it is many times the limit.
        limit: maximum number of tokens.
        counted: the number in words, `"600 tokens"` or `"more than 4096 tokens"`.
    """

    def __init__(self, message: str, *, index: int, tokens: int, limit: int, counted: str) -> None:
        super().__init__(message)
        self.index, self.tokens, self.limit, self.counted = index, tokens, limit, counted


class BundleError(MoembedError, ValueError):
    """Bundle that is missing, incomplete, altered, of another format, or unsafe to load."""


class CheckpointError(MoembedError, ValueError):
    """Checkpoint whose config or tensors do not match the network that moembed implements."""


class SourceError(MoembedError, OSError):
    """Model that cannot be found: no such folder, hub name or revision, or no network."""


class OutputError(MoembedError, OSError):
    """Destination that cannot be written, or whose content must not be overwritten."""


class ProviderError(MoembedError, RuntimeError):
    """Requested execution provider or kernels that are not available."""


class VerificationError(MoembedError, RuntimeError):
    """Bundle whose results are not those of its reference."""


class MissingExtraError(MoembedError, ImportError):
    """Package that is not installed or cannot be imported. The message has the command that installs it."""

    def __init__(self, package: str, purpose: str, problem: str = "is not installed", *, remedy: str) -> None:
        super().__init__(f"{purpose} needs {package}, which {problem}: {remedy}")


@contextmanager
def extra(name: str, purpose: str) -> Iterator[None]:
    """Turn a failed import of an optional package into the command that installs it.

    For example: `with extra("export", "moembed verify --against"): import torch`.

    Args:
        name: extra of moembed that installs the packages.
        purpose: what needs them; the error's sentence starts with it.

    Raises:
        MissingExtraError: an import failed, or the installed protobuf is too old for onnx.
    """
    try:
        yield
    except MissingExtraError:
        raise  # of a guard inside this one
    except Exception as error:
        remedy = f'pip install "moembed[{name}]"'
        if problem := _protobuf_problem(error):
            raise MissingExtraError("onnx", purpose, problem, remedy=remedy) from error
        if not isinstance(error, ImportError):
            raise
        package = (error.name or "a package").partition(".")[0]
        if package == "moembed":
            raise  # a module of moembed itself is missing or broken
        problem = "is not installed" if isinstance(error, ModuleNotFoundError) else f"cannot be imported ({error})"
        raise MissingExtraError(package, purpose, problem, remedy=remedy) from error


def _protobuf_problem(error: Exception) -> str | None:
    """Return what is wrong if onnx cannot be imported because protobuf is too old, with both versions; None for other errors.

    Code that protobuf generates refuses an older runtime by a class of its own, or misses a module of it.
    """
    by_protobuf = type(error).__module__.startswith("google.protobuf")
    if not by_protobuf and not (isinstance(error, ImportError) and (error.name or "").startswith("google")):
        return None
    from importlib import metadata

    try:
        onnx, found = metadata.version("onnx"), metadata.version("protobuf")
    except metadata.PackageNotFoundError:
        return None
    needed = next((need for need in metadata.requires("onnx") or [] if need.startswith("protobuf")), "another protobuf")
    return (
        f"is version {onnx} and requires {needed}, but protobuf {found} is installed (use a new environment if another package "
        "needs that one)"
    )


class MoembedWarning(UserWarning):
    """Base of all warnings of moembed."""

    __reduce__ = _reduce


def warn(warning: MoembedWarning) -> None:
    """Issue a warning that points at the line that called moembed, whatever the depth of the call stack inside moembed."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    warnings.warn(warning, stacklevel=level)


class PromptWarning(MoembedWarning):
    """Call without a prompt on a model whose prompts are mandatory."""


class NativeWarning(MoembedWarning):
    """Native library that is missing or cannot be used: results are the same, but slower."""


class TelemetryWarning(MoembedWarning):
    """ONNX Runtime imported before moembed, which could not turn off its telemetry."""


class EngineWarning(MoembedWarning):
    """Job on Ray or Spark that will not use the workers that were asked for."""


class ClippingWarning(MoembedWarning):
    """Scale of int8 codes that is too small for the vectors: many components were clipped."""


class TruncationWarning(MoembedWarning):
    """Texts cut to the model's limit under `overlong="truncate"` or `"truncate_start"`.

    Attributes:
        indices: positions of the truncated texts, in the caller's order.
    """

    def __init__(self, message: str, indices: tuple[int, ...]) -> None:
        super().__init__(message)
        self.indices = indices
