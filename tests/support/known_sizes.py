"""What bundles of tests have in common, for processes that tests start too: making it would take most of a conversion.

The network of the small checkpoint has a template, as that of a known model, and the vocabulary of the built-in model's
`tokenizer.json`, which the small checkpoint has too, is read from the built-in model.
"""

from collections.abc import Callable
from pathlib import Path

# Python imports a module of this name when it starts, if it finds one.
STARTUP_FILE = "sitecustomize.py"
_STARTUP = """
import importlib.abc, importlib.util, pathlib, sys

TESTS = {tests!r}

def with_template(module):
    module.FOLDER = pathlib.Path(__file__).parent

def with_vocabulary(module):
    sys.path.append(TESTS)
    from support.known_sizes import with_known_vocabulary
    sys.path.remove(TESTS)
    module.vocabulary_of = with_known_vocabulary(module.vocabulary_of)

CHANGES = {{"moembed.export.templates": with_template, "moembed.export.vocabulary": with_vocabulary}}

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        change = CHANGES.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            change(module)
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def write_template(folder: Path, checkpoint: Path) -> None:
    """Write a folder for PYTHONPATH: processes with it have a template of a checkpoint's network, and the known vocabulary."""
    from moembed.export.templates import serialized
    from moembed.models.nomic_bert_moe.config import NomicMoeConfig

    folder.mkdir()
    (folder / "small.onnx").write_bytes(serialized(NomicMoeConfig.from_file(checkpoint / "config.json")))
    (folder / STARTUP_FILE).write_text(_STARTUP.format(tests=str(Path(__file__).parents[1])))


def with_known_vocabulary(vocabulary_of: Callable[[Path], bytes | None]) -> Callable[[Path], bytes | None]:
    """Return a `vocabulary_of` that reads the vocabulary of the built-in model's `tokenizer.json` instead of making it."""
    from moembed.pull.opening import DEFAULT_FOLDER
    from moembed.tokenizer.native import VOCABULARY_FILE

    tokenizer = (DEFAULT_FOLDER / "tokenizer.json").read_bytes()

    def found(path: Path) -> bytes | None:
        if path.read_bytes() == tokenizer:
            return (DEFAULT_FOLDER / VOCABULARY_FILE).read_bytes()
        return vocabulary_of(path)

    return found
