"""`moembed stamp`."""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, emit, emit_json, log
from moembed.errors import InputError, OutputError
from moembed.files.paths import readable

if TYPE_CHECKING:
    from moembed.embedder import Embedder
    from moembed.stamps.stamp import Stamp

_NONE = "no stamp: nobody knows what its vectors are; programs that rewrite a file drop it"


@dataclass(frozen=True)
class _Found:
    path: str
    stamp: "Stamp | None"
    problem: str


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "stamp",
        help="show what vectors are, and compare files of vectors",
        description="Print the stamps of vectors: model, prompt, width, precision and whatever else decides their bytes. "
        "The exit code is 0 if all files have a stamp and hold vectors of one kind, which can stand in one index, and 1 if not.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="a Parquet, Arrow, npy, JSONL or CSV file, or a folder of such files",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print and compare the stamps."""
    from moembed.stamps.loading import vector_files
    from moembed.stamps.stamp import differences

    found = [_found(file) for path in arguments.paths for file in vector_files(path)]
    first = next((one for one in found if one.stamp), None)
    same = all(one.stamp and first and first.stamp and not differences(first.stamp, one.stamp) for one in found)
    (_print_json if arguments.json else _print)(found, first, same)
    return 0 if same else 1


def _print_json(found: list[_Found], first: _Found | None, same: bool) -> None:
    from moembed.stamps.stamp import differences

    files = [
        {
            "path": one.path,
            "stamp": one.stamp and asdict(one.stamp),
            "problem": one.problem or None,
            "differences": differences(first.stamp, one.stamp) if first and first.stamp and one.stamp else [],
        }
        for one in found
    ]
    emit_json({"same": same, "files": files})


def _print(found: list[_Found], first: _Found | None, same: bool) -> None:
    """Print each stamp once, below the names of its files."""
    groups: dict[Stamp, list[str]] = {}
    for one in found:
        if one.stamp:
            groups.setdefault(one.stamp, []).append(one.path)
    for stamp, paths in groups.items():
        emit("\n".join(paths))
        for name, value in asdict(stamp).items():
            emit(f"  {name:<12} {_shown(value)}")
        if first and first.stamp and stamp != first.stamp:
            emit("\n".join(f"  {line}" for line in _comparison(first.path, first.stamp, stamp)))
    for one in found:
        if one.problem:
            emit(f"{one.path}\n  {one.problem}")
    emit(_verdict(len(found), sum(one.stamp is not None for one in found), same=same))


def _comparison(name: str, first: "Stamp", other: "Stamp") -> list[str]:
    from moembed.stamps.stamp import INFORMATION, differences

    if found := differences(first, other):
        return [f"differs from {name} in {line}" for line in found]
    names = [field for field in INFORMATION if getattr(first, field) != getattr(other, field)]
    return [f"has vectors of the kind of {name}, under another {', '.join(names)}"]


def stamp_output(output: str | None, embedder: "Embedder", prompt: str, arguments: argparse.Namespace) -> None:
    """Write the stamp of a file that `moembed embed` has written beside it, unless the file itself has one.

    Args:
        output: path; None for stdout. Nothing is written beside pipes and devices.
        embedder: the model.
        prompt: text in front of every text.
        arguments: parsed arguments of `moembed embed`.
    """
    from moembed.files.destination import is_file
    from moembed.stamps.loading import TABLES
    from moembed.stamps.making import stamp_of
    from moembed.stamps.sidecar import write_sidecar

    if output is None or not is_file(output) or (Path(output).suffix.lower() in TABLES and not arguments.format):
        return
    try:
        write_sidecar(Path(output), stamp_of(embedder, prompt, arguments.dim, arguments.precision, arguments.overlong))
    except OutputError as error:  # such as a name that is too long
        log(f"moembed: {output} is complete, but has no stamp: {error}")


def _found(path: Path) -> _Found:
    from moembed.stamps.loading import read_stamp

    name = readable(path)
    try:
        stamp = read_stamp(path)
    except InputError as error:
        return _Found(name, None, str(error))
    return _Found(name, stamp, "" if stamp else _NONE)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _verdict(files: int, stamped: int, *, same: bool) -> str:
    if same:
        return "1 file" if files == 1 else f"{files} files hold vectors of one kind"
    if stamped < files:
        return f"{files - stamped} of {files} files without a valid stamp"
    return f"{files} files do not hold vectors of one kind"
