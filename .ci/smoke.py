"""Installs a wheel or an sdist into an empty environment without a compiler, and uses it there.

    python .ci/smoke.py dist/moembed-0.1.0-py3-none-win_amd64.whl --native

--native and --no-native say whether the native library has to be there. --no-runtime is for platforms that ONNX Runtime has no
wheel for: texts are only cut into tokens there, and embedding is an error that says what to do.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

_TOKENS = """
import sys
import moembed
from moembed.pull.opening import open_bundle
from moembed.native.loader import native_library
from moembed.tokenizer.tokenizer import Tokenizer
assert moembed.__file__.startswith(sys.prefix), moembed.__file__
loaded = native_library().functions is not None
assert loaded == (sys.argv[1] == "True"), native_library().reason
(ids,) = Tokenizer(open_bundle(None), backend="native" if loaded else "tokenizers").encode(["Wie backt man Brot?"])
assert len(ids) > 4, ids
print("native library:", loaded)
"""
_ERROR = """
from moembed import Embedder
from moembed.errors import MissingExtraError
try:
    Embedder.from_pretrained()
    raise SystemExit("onnxruntime is there")
except MissingExtraError as error:
    print(error)
    assert "onnxruntime has wheels for" in str(error), error
"""
_VECTORS = """
import warnings
import numpy as np
from moembed import Embedder
warnings.simplefilter("ignore")
model = Embedder.from_pretrained()
texts = ["Bake the bread for forty minutes.", "Zum Bahnhof nimmt man die Linie 4.", "The dough has to rest."]
documents = model.encode_document(texts)
assert all(np.array_equal(model.encode_document([text])[0], row) for text, row in zip(texts, documents, strict=True))
best = model.similarity(model.encode_query(["How long does bread stay in the oven?"]), documents).argmax()
assert best == 0, best
print("kernels:", model.kernels, "shape:", documents.shape)
"""


def main() -> None:
    """Install, check, and remove everything again."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("artifact", type=Path, help="the wheel or sdist")
    arguments.add_argument("--native", action=argparse.BooleanOptionalAction, required=True)
    arguments.add_argument("--no-runtime", action="store_true")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _use(Path(folder), chosen.artifact.resolve(strict=True), chosen.native, not chosen.no_runtime)


def _use(folder: Path, artifact: Path, native: bool, runtime: bool) -> None:
    venv.create(folder / "environment", with_pip=True)
    programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
    environment = {name: value for name, value in os.environ.items() if name not in ("CC", "CXX", "PYTHONPATH")}
    # Of the system's programs only what Windows itself needs: no compiler is found.
    system = [str(Path(os.environ["SYSTEMROOT"]) / "System32")] if os.name == "nt" else []
    environment |= {"PATH": os.pathsep.join([str(programs), *system]), "MOEMBED_CACHE": str(folder / "cache")}
    python = str(programs / "python")

    def run(*command: str) -> None:
        print("+", *[part if "\n" not in part else "..." for part in command], flush=True)
        subprocess.run(command, env=environment, cwd=folder, check=True)

    binary = ["--only-binary", ":all:"] if artifact.suffix == ".whl" else []
    # At an address of its own: pip keeps wheels that it built by the address of the sdist.
    requirement = f"moembed @ {Path(shutil.copy(artifact, folder)).as_uri()}"
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *binary, requirement)
    run(python, "-m", "pip", "check")
    run(python, "-c", _TOKENS, str(native))
    if not runtime:
        run(python, "-c", _ERROR)
        return
    run(python, "-c", _VECTORS)
    run(str(programs / "moembed"), "similarity", "bread", "Brot")


if __name__ == "__main__":
    sys.exit(main())
