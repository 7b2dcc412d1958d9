"""Arguments and printing shared by the commands."""

import argparse
import json
import os
import re
from typing import TYPE_CHECKING, Any

from moembed.cli.streams import stdout, write_message

if TYPE_CHECKING:
    from moembed.bundle.bundle import Bundle
    from moembed.embedder import Embedder
    from moembed.pull.report import Reporter

# C0 except \t and \n, DEL and C1, bidirectional controls, and surrogates, which cannot be encoded.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
Subparsers = argparse._SubParsersAction  # argparse has no public name for this type


def add_model(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add the arguments that select a model, or `several`: `model` is a list then."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m",
        "--model",
        action="append" if several else "store",
        metavar="NAME",
        help="hub name, bundle folder or checkpoint folder (default: the built-in model); a model that is not converted yet is "
        "downloaded and converted, which needs the extra 'convert'",
    )
    group.add_argument("--revision", help="commit, tag or branch of a hub name")
    group.add_argument("--offline", action="store_true", help="do not use the network")
    add_quiet(group)
    group.add_argument(
        "--provider", default="cpu", help="cpu or cuda (default: cpu); it is an error if cuda is not available"
    )
    group.add_argument("--threads", type=int, help="threads per model call (default: the number of available CPUs)")


def add_task(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the arguments that select a prompt."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--task",
        default=default,
        metavar="NAME",
        help=f"query, document, or another prompt name from `moembed info` (default: {default})",
    )
    group.add_argument("--prompt", metavar="TEXT", help="custom prompt in front of every text; '' for none")


def add_quiet(parser: argparse._ActionsContainer) -> None:
    """Add the argument that turns progress off."""
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no notes and no progress of downloads and conversions"
    )


def open_embedder(arguments: argparse.Namespace) -> "Embedder":
    """Open the model that the arguments select."""
    from moembed.embedder import Embedder

    bundle = open_source(arguments.model, arguments)
    return Embedder(bundle, providers=arguments.provider, threads=arguments.threads)


def open_source(source: str | None, arguments: argparse.Namespace, *, rehash: bool = False) -> "Bundle":
    """Open a bundle by its folder or name; a model that is not converted yet is converted.

    Args:
        source: folder, hub name, or None for the built-in model.
        arguments: parsed arguments; `offline`, and if the command has them `revision` and `quiet`, count.
        rehash: hash all files of the bundle.
    """
    from moembed.bundle.manifest import MANIFEST_FILE
    from moembed.pull.opening import open_bundle

    if source is None or os.path.isfile(os.path.join(source, MANIFEST_FILE)):  # noqa: PTH113, PTH118  (no error for any text)
        return open_bundle(source, rehash=rehash)  # nothing that takes long
    from moembed.cli.interrupts import prompt_interrupts

    with prompt_interrupts(source):
        return open_bundle(
            source,
            revision=getattr(arguments, "revision", None),
            local_files_only=arguments.offline,
            rehash=rehash,
            reporter=reporter_of(arguments),
        )


def reporter_of(arguments: argparse.Namespace) -> "Reporter":
    """Return the reporter that the arguments select."""
    from moembed.pull.report import Reporter, default_reporter

    return Reporter() if getattr(arguments, "quiet", False) else default_reporter()


def prompt_of(arguments: argparse.Namespace, embedder: "Embedder") -> str:
    """Return the prompt that the arguments select."""
    if arguments.prompt is not None:
        return str(arguments.prompt)
    return embedder.prompt_for(arguments.task)


def printable(text: str) -> str:
    r"""Escape the control characters of a text, such as `\u001b`, which a terminal would obey.

    Line ends and tabs stay. The escapes are those of JSON, so that a JSON document keeps its meaning.
    """
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def log(text: str) -> None:
    """Print a message on stderr."""
    write_message(printable(text))


def emit(text: str) -> None:
    """Print a line of data, on stdout."""
    with stdout() as out:
        out.write(printable(text) + "\n")


def emit_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    emit(json.dumps(value, ensure_ascii=False, indent=1))
