"""The command line. Data goes to stdout, words go to stderr."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial

from moembed.cli import doctor, embed, evaluate, export, info, quantize, search, serve, similarity, verify
from moembed.cli.common import printable
from moembed.errors import MoembedError, MoembedWarning
from moembed.version import __version__

_COMMANDS = (embed, search, similarity, serve, export, quantize, verify, evaluate, info, doctor)
_EPILOG = """exit codes:
  0    done
  1    a check said no (verify, doctor)
  2    the request cannot be met: bad arguments, input, model or destination
  130  interrupted (Ctrl-C)
  141  the reader of the output went away
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="moembed",
        description="Text embeddings with nomic-embed-text-v2-moe on ONNX Runtime.",
        epilog=_EPILOG,
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, max_help_position=16),
    )
    top.add_argument("--version", action="version", version=f"moembed {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands).set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.simplefilter("default", MoembedWarning)
        warnings.showwarning = lambda message, *_args, **_kwargs: print(  # noqa: T201
            printable(f"moembed: warning: {message}"), file=sys.stderr
        )
        try:
            code: int = arguments.run(arguments)
            sys.stdout.flush()
        except MoembedError as error:
            print(printable(f"moembed: error: {error}"), file=sys.stderr)  # noqa: T201
            return 2
        except KeyboardInterrupt:
            print("moembed: interrupted", file=sys.stderr)  # noqa: T201
            return 130
        except BrokenPipeError:
            # Whatever is still buffered has no reader; keep the interpreter's last flush from complaining.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
    return code
