"""Outputs of the projection that a release sets to 0: components that are almost the same in every text.

Such a component moves every cosine toward 1 and takes steps of codes away from the others, but tells no two texts apart.
"""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from moembed.errors import InputError
from moembed.models.roles import Kind
from moembed.models.weights import WEIGHTS_FILE
from moembed.train.recipe import RECIPE_FILE

Parameters = dict[str, NDArray[Any]]


def zero_outputs(parameters: Parameters, outputs: Sequence[int]) -> None:
    """Set rows of the projection's weight `[hidden, hidden]` and bias `[hidden]` to 0, in place.

    Args:
        parameters: tensors of a checkpoint by name.
        outputs: indices of the rows.

    Raises:
        InputError: the checkpoint has no such output.
    """
    names = [Kind.PROJECTION.value] + [name for name in (Kind.PROJECTION_BIAS.value,) if name in parameters]
    for name in names:
        rows = len(parameters[name]) if name in parameters else 0
        if wrong := [output for output in outputs if not 0 <= output < rows]:
            raise InputError(
                f"the recipe's zeroed_outputs has {wrong[0]}, but {name} has {rows} outputs: correct the recipe"
            )
        parameters[name][list(outputs)] = np.zeros((), parameters[name].dtype)


def zero_outputs_of_checkpoint(folder: Path, outputs: Sequence[int]) -> None:
    """Set outputs of a checkpoint's projection to 0, and write the new digest of its weights to its `recipe.json`.

    Raises:
        InputError: see `zero_outputs`.
    """
    if not outputs:
        return
    path, report = folder / WEIGHTS_FILE, folder / RECIPE_FILE
    parameters = load_file(path)
    zero_outputs(parameters, outputs)
    save_file(parameters, path, metadata={"format": "pt"})
    made = json.loads(report.read_text("utf-8")) | {"sha256": sha256(path.read_bytes()).hexdigest()}
    report.write_text(json.dumps(made, ensure_ascii=False, indent=2), "utf-8")
