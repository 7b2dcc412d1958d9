"""Files and outputs of small corpora."""

import json


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")


def rejects(folder):
    """Rejected rows of a folder."""
    found = sorted((folder / "_moembed" / "rejects").glob("*"))
    return [json.loads(line) for path in found for line in path.read_text("utf-8").splitlines()]


def content(folder):
    """Bytes of all files that a run leaves, by name, but for those that also tell who made it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.json", "inputs.json", "lock")
    }
