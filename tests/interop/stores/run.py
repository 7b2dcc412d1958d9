"""Search codes with every store, in the environment of the extra `stores`, which has no moembed.

python run.py CODES.npz IDS.json RESULTS.json

CODES.npz has `documents_<precision>` and `queries_<precision>`; IDS.json has the documents' ids, which are texts.
"""

import json
import sys
from pathlib import Path

import ids as mapping
import numpy as np
from traps import TRAPS
from ways import WAYS

COUNT = 10


def mapped(way, texts):
    """The ids of documents in the form that a store takes, and back."""
    one = mapping.uuid_id if way.store == "qdrant" else mapping.int64_id
    return {one(text): text for text in texts}


def trap_result(trap, codes, keys):
    """The rows that a trap finds, or the error that it raises."""
    try:
        found = trap(codes, keys, COUNT)
    except Exception as error:  # of any class: each store has its own
        return {"error": f"{type(error).__name__}: {error}"}
    return {"found": found}


def main():
    codes_path, ids_path, results_path = sys.argv[1:]
    texts = json.loads(Path(ids_path).read_text("utf-8"))
    codes = dict(np.load(codes_path))
    results = {"ways": [], "traps": {}}
    for way in WAYS:
        back = mapped(way, texts)
        documents, queries = codes[f"documents_{way.precision}"], codes[f"queries_{way.precision}"]
        found = way.search(documents, list(back), queries, COUNT)
        results["ways"].append([[back[key] for key in row] for row in found])
    for trap in TRAPS:
        results["traps"][trap.__name__] = trap_result(trap, codes, list(range(len(texts))))
    Path(results_path).write_text(json.dumps(results), "utf-8")


if __name__ == "__main__":
    main()
