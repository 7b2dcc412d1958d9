"""Rejected rows of an earlier run."""

import json

from moembed.corpus.inventory import Inventory
from moembed.corpus.run_record import RECORD, RunRecord
from moembed.corpus.shards import REJECTS
from moembed.corpus.target import existing_target
from moembed.errors import InputError


def rejected_rows(folder: str, inventory: Inventory) -> tuple[int, ...]:
    """Return the indices of the rows that a run rejected, ascending.

    Args:
        folder: output folder of the run.
        inventory: the files now; rows may have been mended, but their number in each file must be the same.

    Raises:
        InputError: the folder is not that of a run or its rejects are damaged, or the files have other numbers of rows.
    """
    target = existing_target(folder)
    content = target.read(RECORD) if target else None
    if target is None or content is None:
        raise InputError(f"{folder} is no output folder of moembed embed: name the one whose rejected rows are wanted")
    record = RunRecord.from_json(content, f"{folder}/{RECORD}")
    before = [file["rows"] for file in record.deciding["inputs"]]
    now = [file.rows for file in inventory.files]
    if before != now:
        raise InputError(
            f"the files have {now} rows, and had {before} when {folder} was written: they are known by their numbers, so "
            "mend them in place"
        )
    found: list[int] = []
    for name in target.names(REJECTS):
        lines = (target.read(f"{REJECTS}/{name}") or b"").splitlines()
        try:
            found += [int(json.loads(line)["index"]) for line in lines]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{folder}/{REJECTS}/{name} is damaged ({error!r}): give the command of {folder} again, which mends it"
            ) from error
    return tuple(sorted(found))
