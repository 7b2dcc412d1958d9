"""What several commands share: the arguments that choose a model and a task, and printing."""

import argparse
import json
import re
from typing import TYPE_CHECKING, Any

from moembed.cli.streams import stdout, write_words

if TYPE_CHECKING:
    from moembed.embedder import Embedder

# C0 but for \t and \n, DEL and C1, what turns the direction of writing, and what no encoding takes.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
Subparsers = argparse._SubParsersAction  # the type that argparse itself gives no public name


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that choose and open a bundle."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-m", "--model", metavar="BUNDLE", help="bundle folder or hub name (default: the built-in model)"
    )
    group.add_argument("--revision", help="commit, tag or branch of a hub name")
    group.add_argument("--offline", action="store_true", help="never touch the network")
    group.add_argument(
        "--provider", default="cpu", help="cpu or cuda (default: cpu); asking for cuda and not having it is an error"
    )
    group.add_argument("--threads", type=int, help="threads of one call (default: the CPUs available)")


def add_task(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the arguments that choose the prompt."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--task",
        default=default,
        metavar="NAME",
        help=f"query, document, or a prompt name of the model, see `moembed info` (default: {default})",
    )
    group.add_argument("--prompt", metavar="TEXT", help="a prompt of your own in front of every text; '' for none")


def open_embedder(arguments: argparse.Namespace) -> "Embedder":
    """The embedder that the model arguments ask for."""
    from moembed.embedder import Embedder

    return Embedder.from_pretrained(
        arguments.model,
        revision=arguments.revision,
        providers=arguments.provider,
        threads=arguments.threads,
        local_files_only=arguments.offline,
    )


def prompt_of(arguments: argparse.Namespace, embedder: "Embedder") -> str:
    """The prompt that the task arguments ask for."""
    if arguments.prompt is not None:
        return str(arguments.prompt)
    return embedder.prompt_for(arguments.task)


def printable(text: str) -> str:
    r"""A text whose control characters are escaped as `\u001b`: a terminal would obey them, whoever wrote the text.

    Line ends and tabs stay. What is escaped in a JSON document means the same there.
    """
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def say(text: str) -> None:
    """Print words for the user, on stderr."""
    write_words(printable(text))


def emit(text: str) -> None:
    """Print a line of data, on stdout."""
    with stdout() as out:
        out.write(printable(text) + "\n")


def emit_json(value: Any) -> None:
    """Print one JSON document on stdout."""
    emit(json.dumps(value, ensure_ascii=False, indent=1))
