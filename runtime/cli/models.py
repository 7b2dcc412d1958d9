"""`moembed models`."""

import argparse
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, emit, emit_json, log

if TYPE_CHECKING:
    from moembed.store.kept import Entry

_REVISION_SHOWN = 12


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "models",
        help="list the models that are known and kept, or remove one",
        description="Print the models that moembed knows by name, the bundles that it keeps in the data folder with their "
        "recipes and sizes, and incomplete downloads.",
    )
    parser.add_argument(
        "--remove", metavar="NAME", help="remove all bundles and downloads of a model from the data folder"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the list, or remove a model."""
    return _remove(arguments.remove) if arguments.remove is not None else _list(as_json=arguments.json)


def _list(*, as_json: bool) -> int:
    from moembed.models.spec import known_specs
    from moembed.store.kept import entries
    from moembed.store.place import VARIABLE, data_folder

    data = data_folder()
    found = list(entries())
    known = [spec.repo for spec in known_specs() if spec.repo]
    if as_json:
        kept = [
            {
                "name": entry.model,
                "state": _state(entry),
                "recipe": entry.recipe,
                "revision": entry.revision,
                "size": entry.size,
                "folder": str(entry.folder),
                "problem": entry.problem,
            }
            for entry in found
        ]
        emit_json({"data_folder": None if data is None else str(data), "known": known, "kept": kept})
        return 0
    emit(f"data folder  {data or f'none: this user has no home folder; set {VARIABLE} to a folder'}")
    for entry in found:
        revision = entry.revision[:_REVISION_SHOWN]
        emit(f"{entry.model}  {entry.recipe or '-'}  {entry.size / 1e6:.1f} MB  {revision or '-'}  {_state(entry)}")
        emit(f"  {entry.folder}")
        if entry.problem:
            emit(f"  {entry.problem}")
    complete = {entry.model for entry in found if _state(entry) == "kept"}
    for name in known:
        if name not in complete:
            emit(f"{name}  not converted: moembed pull {name}")
    return 0


def _state(entry: "Entry") -> str:
    from moembed.pull.model import version_of

    if entry.recipe is None:
        return "incomplete"
    if entry.problem is not None:
        return "damaged"
    return "kept" if entry.version == version_of(entry.recipe) else "of another version of moembed"


def _remove(name: str) -> int:
    from moembed.pull.opening import model_of
    from moembed.store.kept import folder_named, remove
    from moembed.store.room import in_words

    title, folder = name, folder_named(name)
    if folder is None and (model := model_of(name, None)) is not None:
        title, folder = model.name, model.folder
    removal = remove(title, folder)
    if removal is None:
        log(f"moembed: nothing is kept of {title}")
        return 0
    for left in removal.kept:
        log(f"moembed: not removed: {left}")
    log(f"moembed: removed {title}: {in_words(removal.freed)}; files in the hub's cache are not touched")
    return 0
