"""Command line. Data goes to stdout, messages go to stderr."""

import argparse
import stat
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from moembed.cli import (
    card,
    doctor,
    embed,
    evaluate,
    export,
    gather,
    info,
    models,
    pull,
    quantize,
    search,
    serve,
    ship,
    similarity,
    stamp,
    train,
    verify,
)
from moembed.cli.common import log
from moembed.cli.streams import flush_stdout, standard_streams, stdout
from moembed.cli.wording import in_options
from moembed.errors import InputError, MoembedError, MoembedWarning
from moembed.version import __version__

_COMMANDS = {
    "texts": (embed, search, similarity, stamp, serve),
    "models": (pull, models),
    "bundles": (export, quantize, verify, evaluate, info),
    "training": (gather, train, ship, card),
    "installation": (doctor,),
}
_HEADINGS = {group[0].__name__.rpartition(".")[2]: heading for heading, group in _COMMANDS.items()}
_COMMANDS_WITH_TEXTS = ("embed", "similarity")
_EPILOG = """exit codes:
  0    success
  1    a check failed (verify, doctor, stamp)
  2    error in the arguments, the input, the model or the output
  3    some rows of a corpus were rejected (embed --on-error skip)
  130  interrupted (Ctrl-C)
  141  the reader of the output exited
  143  ended by SIGTERM while a model was downloaded or converted, or a corpus embedded
"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in which each group of commands has a heading."""

    def _format_action(self, action: argparse.Action) -> str:
        text, heading = super()._format_action(action), _HEADINGS.get(action.dest)
        return text if heading is None else f"\n  {heading}:\n{text}"


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse ignores write errors: --help on a full disk would end with exit code 0.
        if file is None or file is not sys.stdout:
            super()._print_message(message, file)
            return
        with stdout() as out:
            out.write(message)


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    top = _Parser(
        prog="moembed",
        description="Text embeddings with nomic-embed-text-v2-moe on ONNX Runtime.",
        epilog=_EPILOG,
        formatter_class=partial(_Formatter, max_help_position=16),
    )
    top.add_argument("--version", action="version", version=f"moembed {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in _COMMANDS.values():
        for command in group:
            command.add_parser(commands).set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with standard_streams():
        try:
            try:
                return _run(argv)
            finally:  # also after --help, where argparse exits
                flush_stdout()
        except MoembedError as error:
            log(f"moembed: error: {error}")
            return 2
        except KeyboardInterrupt as error:
            log("; ".join(("moembed: interrupted", *map(str, error.args))))
            return getattr(error, "exit_code", 130)
        except BrokenPipeError:
            return 141


def _run(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    if arguments.command in _COMMANDS_WITH_TEXTS:
        _refuse_files(arguments, sys.argv[1:] if argv is None else argv)
    with warnings.catch_warnings():
        warnings.simplefilter("default", MoembedWarning)
        warnings.showwarning = lambda message, *_args, **_kwargs: log(f"moembed: warning: {message}")
        try:
            code: int = arguments.run(arguments)
        except InputError as error:
            raise InputError(in_options(error, arguments.command)) from error
    return code


def _refuse_files(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Refuse a TEXT that is the name of a file, unless `--` precedes it: it is hardly meant as a text."""
    after_dashes = len(argv) - argv.index("--") - 1 if "--" in argv else 0
    for text in arguments.texts[: len(arguments.texts) - after_dashes]:
        if _is_file(text):
            hint = f"; pass -i {text} to embed its content" if arguments.command == "embed" else ""
            raise InputError(f"{text} is a file; expected a text{hint}; put -- before it if it is meant as a text")


def _is_file(text: str) -> bool:
    try:
        return not stat.S_ISDIR(Path(text).stat().st_mode)
    except (OSError, ValueError):  # such as a text that is too long for a file name
        return False
