"""Template of the small checkpoint's network for processes that tests start: tracing it would take most of a conversion."""

from pathlib import Path

# Python imports a module of this name when it starts, if it finds one.
STARTUP_FILE = "sitecustomize.py"
_STARTUP = """
import importlib.abc, importlib.util, pathlib, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "moembed.export.templates":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            module.FOLDER = pathlib.Path(__file__).parent
        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Finder())
"""


def write_template(folder: Path, checkpoint: Path) -> None:
    """Write a folder for PYTHONPATH with which moembed has a template of a checkpoint's network."""
    from moembed.export.templates import serialized
    from moembed.models.nomic_bert_moe.config import NomicMoeConfig

    folder.mkdir()
    (folder / "small.onnx").write_bytes(serialized(NomicMoeConfig.from_file(checkpoint / "config.json")))
    (folder / STARTUP_FILE).write_text(_STARTUP)
