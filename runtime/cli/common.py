"""Arguments and printing shared by the commands."""

import argparse
import json
import re
from typing import TYPE_CHECKING, Any

from moembed.cli.streams import stdout, write_message

if TYPE_CHECKING:
    from moembed.embedder import Embedder

# C0 except \t and \n, DEL and C1, bidirectional controls, and surrogates, which cannot be encoded.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
Subparsers = argparse._SubParsersAction  # argparse has no public name for this type


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that select a model."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m", "--model", metavar="BUNDLE", help="bundle folder or hub name (default: the built-in model)"
    )
    group.add_argument("--revision", help="commit, tag or branch of a hub name")
    group.add_argument("--offline", action="store_true", help="do not use the network")
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


def open_embedder(arguments: argparse.Namespace) -> "Embedder":
    """Open the model that the arguments select."""
    from moembed.embedder import Embedder

    return Embedder.from_pretrained(
        arguments.model,
        revision=arguments.revision,
        providers=arguments.provider,
        threads=arguments.threads,
        local_files_only=arguments.offline,
    )


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
