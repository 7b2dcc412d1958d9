"""Published ids of texts, and the published tokenizer."""

import json
import os
from pathlib import Path

from support.folders import DATA, ROOT

VECTORS = json.loads((DATA / "token_id_vectors.json").read_text())
# The published tokenizer.json (17 MB, not in the repository); any copy with the pinned sha256 serves.
PUBLISHED = Path(os.environ.get("MOEMBED_PUBLISHED_TOKENIZER", ROOT.parent / "shared/spec/tokenizer.json"))
