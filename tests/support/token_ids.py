"""Token ids of texts by the published tokenizer, and its path."""

import json
import os
from pathlib import Path

from support.folders import DATA, ROOT

VECTORS = json.loads((DATA / "token_id_vectors.json").read_text())
# The published tokenizer.json (17 MB, not in the repository), with the pinned sha256.
PUBLISHED = Path(os.environ.get("MOEMBED_PUBLISHED_TOKENIZER", ROOT.parent / "shared/spec/tokenizer.json"))
