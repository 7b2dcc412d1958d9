"""Need of a conversion: bytes on disk and of memory, by the size of the network."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from moembed.errors import extra
from moembed.models.config import NetworkConfig
from moembed.quantize.recipe import load_recipe
from moembed.store.room import check_disk, check_memory


def bundle_bytes(parameters: int, recipe: str) -> int:
    """Return an upper bound of the bytes of a bundle and of what is written while it is made.

    Args:
        parameters: number of parameters of the network.
        recipe: name of the recipe.

    Raises:
        InputError: there is no such recipe.
    """
    # A recipe that keeps layers chooses them with a float32 graph, in a folder that is removed again.
    return int((1.3 + 4 * (load_recipe(recipe).keep > 0)) * parameters) + (64 << 20)


def memory_bytes(parameters: int) -> int:
    """Return an upper bound of the bytes of memory that a conversion takes, without the page cache."""
    return 2 * parameters + (512 << 20)


def check_graph(config: NetworkConfig) -> None:
    """Make sure that there is a graph of a network: a template, or PyTorch to trace it.

    Raises:
        MissingExtraError: neither is there.
    """
    from moembed.export.templates import find_template  # imports onnx

    if find_template(config) is None:
        with extra("export", "Converting a network of a size that moembed has no template of"):
            for package in ("torch", "onnxscript"):
                if find_spec(package) is None:  # to import them takes seconds
                    raise ModuleNotFoundError(f"No module named {package!r}", name=package)


def check_need(name: str, parameters: int, disk: Mapping[Path, int]) -> None:
    """Make sure that there is room for a conversion.

    Args:
        name: the model.
        parameters: number of its parameters.
        disk: bytes to write, by folder.

    Raises:
        OutputError: there is too little memory, or a file system has too little room.
    """
    purpose = f"Converting {name}"
    check_disk(disk, purpose)
    check_memory(memory_bytes(parameters), purpose)
