"""Record of a run: all that decides the bytes of its shards. Another command into the same folder is refused by it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moembed.corpus.inventory import Inventory
from moembed.corpus.rows import Selection
from moembed.corpus.target import OWN, LocalTarget, RemoteTarget
from moembed.errors import OutputError
from moembed.stamps.stamp import Stamp, differences
from moembed.version import __version__

RECORD = f"{OWN}/run.json"
_FORMAT = 1


@dataclass(frozen=True)
class RunRecord:
    """Record of a run.

    Attributes:
        deciding: what decides the bytes, by name.
        stamp: stamp of the vectors.
        information: what decides nothing, but people read.
    """

    deciding: dict[str, Any]
    stamp: Stamp
    information: dict[str, Any]

    @classmethod
    def of(
        cls,
        inventory: Inventory,
        selection: Selection,
        stamp: Stamp,
        *,
        form: str,
        fixed: bool,
        shard_rows: int,
        slices: int,
        only: Sequence[int] | None,
    ) -> "RunRecord":
        """Make the record of a run."""
        inputs = [
            {"sha256": file.sha256, "size": file.size, "rows": file.rows, "format": file.form}
            for file in inventory.files
        ]
        deciding = {
            "inputs": inputs,
            "field": None if selection.template else selection.field,
            "template": list(selection.template.parts) if selection.template else None,
            "id": [selection.id, selection.id_required],
            "keep": [list(pair) for pair in selection.keep] + (["all"] if selection.keep_all else []),
            "format": form,
            "fixed-size lists": fixed,
            "rows of a shard": shard_rows,
            "slices": slices,
            "only rows": None if only is None else hashlib.sha256(json.dumps(list(only)).encode()).hexdigest(),
        }
        return cls(deciding, stamp, {"files": [file.path for file in inventory.files], "moembed": __version__})

    def to_json(self) -> str:
        """Return the record as JSON."""
        whole = {
            "format": _FORMAT,
            "deciding": self.deciding,
            "stamp": asdict(self.stamp),
            "information": self.information,
        }
        return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, content: bytes, name: str) -> "RunRecord":
        """Read a record.

        Raises:
            OutputError: it is none, or one of another version.
        """
        try:
            raw = json.loads(content)
            if raw["format"] != _FORMAT:
                raise OutputError(f"{name} has format {raw['format']}, expected {_FORMAT}: begin anew with --force")
            stamp = Stamp.from_json(json.dumps(raw["stamp"]), name)
            return cls(dict(raw["deciding"]), stamp, dict(raw["information"]))
        except (ValueError, KeyError, TypeError) as error:
            raise OutputError(f"{name} is damaged ({error}): begin anew with --force") from error

    @property
    def digest(self) -> str:
        """Digest of all that decides the bytes, which every finished shard holds."""
        stamp = {
            name: value for name, value in asdict(self.stamp).items() if name not in ("model", "revision", "moembed")
        }
        return hashlib.sha256(json.dumps([self.deciding, stamp], sort_keys=True).encode()).hexdigest()

    def differences(self, other: "RunRecord") -> list[str]:
        """Return a line for everything that decides bytes and differs: as here, and as in `other`."""
        lines = []
        for name in self.deciding:
            one, two = self.deciding[name], other.deciding.get(name)
            if one != two:
                lines.append(_inputs(one, two or []) if name == "inputs" else f"{name}: {one!r}, and {two!r}")
        return lines + differences(self.stamp, other.stamp)


def _inputs(one: list[Any], two: list[Any]) -> str:
    if len(one) != len(two):
        return f"inputs: {len(one)} files, and {len(two)}"
    number = next(index for index, pair in enumerate(zip(one, two, strict=True)) if pair[0] != pair[1])
    first, second = one[number], two[number]
    what = next(name for name in ("format", "size", "rows", "sha256") if first[name] != second[name])
    return f"inputs: the {what} of file {number} is {str(first[what])[:16]}, and {str(second[what])[:16]}"


def settle_record(target: LocalTarget | RemoteTarget, record: RunRecord, *, force: bool) -> RunRecord | None:
    """Compare a record with that of the folder, and write it if there is none.

    Args:
        target: the folder.
        record: the record of this command.
        force: begin anew where they differ.

    Returns:
        The record that the folder had; None if it had none, or began anew.

    Raises:
        OutputError: the folder has another record, or files but no record.
    """
    content = target.read(RECORD)
    strangers = [name for name in target.names() if name[0] not in "._"] if content is None else []
    if strangers:
        content = target.read(RECORD)  # another slice may have begun meanwhile
    if content is None:
        if strangers:
            raise OutputError(
                f"cannot write {target.path}: it has files that no run of moembed embed put there, such as {strangers[0]}: name "
                "another folder, which may be absent"
            )
    else:
        try:
            found = RunRecord.from_json(content, f"{target.path}/{RECORD}")
            lines = found.differences(record)
        except OutputError:
            if not force:
                raise
            lines = ["damaged"]
        if not lines and not force:
            return found
        if not force:
            raise OutputError(
                f"{target.path} was begun by another command; as it was, and as it is now: {'; '.join(lines)}. Give the same "
                "command again to go on, name another folder, or delete what is there and begin anew with --force"
            )
        _clear(target)
    text = record.to_json().encode()
    target.put(RECORD, lambda out: out.write(text))
    return None


def _clear(target: LocalTarget | RemoteTarget) -> None:
    """Remove what a run wrote: the record last, so that a folder without one has no shards."""
    for name in target.names():
        if name.startswith("rows-"):
            target.remove(name)
    for folder in ("done", "rejects", "ids"):
        for name in target.names(f"{OWN}/{folder}"):
            target.remove(f"{OWN}/{folder}/{name}")
    target.remove(f"{OWN}/inputs.json")
    target.remove(RECORD)
