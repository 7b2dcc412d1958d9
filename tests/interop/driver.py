"""Embed queries with a program of this folder, in its tool's environment.

python driver.py PROGRAM BUNDLE GRAPH QUERIES.json VECTORS.npy
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

program, bundle, graph, queries, vectors = sys.argv[1:]
texts = json.loads(Path(queries).read_text("utf-8"))
np.save(vectors, importlib.import_module(program).embed(Path(bundle), graph, texts))
