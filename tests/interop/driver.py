"""Embed queries with another tool, in that tool's environment: driver.py MODULE BUNDLE GRAPH QUERIES.json VECTORS.npy."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

module, bundle, graph, queries, vectors = sys.argv[1:]
texts = json.loads(Path(queries).read_text("utf-8"))
np.save(vectors, importlib.import_module(module).embed(Path(bundle), graph, texts))
