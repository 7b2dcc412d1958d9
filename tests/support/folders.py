"""Folders that tests read."""

import os
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
DATA = TESTS / "data"
# Sets of real relevance judgements, which the repository does not have.
EVAL_DATA = Path(os.environ.get("MOEMBED_EVAL_DATA") or ROOT.parent / "shared" / "data" / "eval")
