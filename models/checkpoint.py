"""Strict reading of a checkpoint folder: every tensor accounted for by name, shape, dtype and finiteness.

A loader that accepts missing tensors computes another network: transformers 5 does, silently. Each tensor may be float32, float16
or bfloat16; float32 holds all of their values exactly.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from moembed.errors import CheckpointError, extra
from moembed.models.config import NetworkConfig
from moembed.models.families import family_of, read_config
from moembed.models.family import Family
from moembed.models.foreign_tensors import kinds, other_names
from moembed.models.parameters import stored_tensors
from moembed.models.weights import WEIGHTS_FILE, Weights, advice, find_weights, open_weights, paths_in

if TYPE_CHECKING:
    from moembed.models.text_encoder import TextEncoder

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # name in safetensors -> our name
_LISTED = 12


def expected_tensors(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that a checkpoint of this configuration holds, in file order."""
    return stored_tensors(family_of(config).parameters(config))


def parameter_count(config: NetworkConfig) -> int:
    """Return the number of parameters of the network."""
    return sum(prod(shape) for shape in expected_tensors(config).values())


@contextmanager
def open_checkpoint(folder: Path, framework: str) -> Iterator[tuple[NetworkConfig, Weights]]:
    """Open the configuration and the weight files of a folder after checking names, shapes and dtypes.

    Args:
        folder: a checkpoint in the published layout.
        framework: `"pt"` or `"np"`, the kind of the tensors.

    Yields:
        The configuration and the open weights (memory-mapped).

    Raises:
        CheckpointError: the folder does not hold exactly this network.
        MissingExtraError: safetensors is not installed.
    """
    config = read_config(folder)
    files = find_weights(folder)
    if files is None:
        raise CheckpointError(f"{folder} lacks {WEIGHTS_FILE}{advice(paths_in(folder))}")
    with open_weights(files, framework) as weights:
        _compare(family_of(config), config, weights)
        yield config, weights


def stored_dtypes(weights: Weights) -> str:
    """Describe the dtypes that tensors are stored in, such as "148 float32"."""
    counts = Counter(_DTYPES[dtype] for _, dtype in weights.shapes().values() if dtype in _DTYPES)
    return ", ".join(f"{count} {dtype}" for dtype, count in sorted(counts.items()))


def load_network(folder: Path) -> "TextEncoder":
    """Load a checkpoint into the PyTorch network, in float32 and evaluation mode.

    Raises:
        CheckpointError: as `open_checkpoint`, or a tensor holds NaN or infinity.
        MissingExtraError: torch or safetensors is not installed.
    """
    with extra("export", "Loading a checkpoint"):
        import torch

    with open_checkpoint(folder, "pt") as (config, weights):
        family = family_of(config)
        stored = {name: weights.get_tensor(name).to(torch.float32) for name in expected_tensors(config)}
    broken = [name for name, tensor in stored.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(f"{folder} holds NaN or infinity in {listed(broken)}: save it again with finite weights")
    tensors = {
        one.name: one.assemble(stored.__getitem__, lambda parts: torch.cat(list(parts)))
        if one.parts
        else torch.zeros(one.shape)
        for one in family.parameters(config)
    }
    with torch.device("meta"):
        network = family.network(config)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.rebuild_rotary().eval().requires_grad_(False)


def _compare(family: Family, config: NetworkConfig, weights: Weights) -> None:
    expected, found = stored_tensors(family.parameters(config)), weights.shapes()
    problems = family.problems(config, weights)
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected and not family.is_optional(name)]
    renamed, advice_on_names = other_names(unexpected, set(missing))
    unexpected = [name for name in unexpected if name not in renamed]
    problems += [*kinds(unexpected), *advice_on_names]
    if missing := [name for name in missing if name not in renamed.values()]:
        problems.append(f"missing: {listed(missing)}")
    if unexpected:
        problems.append(f"unexpected: {listed(unexpected)}")
    for name, expected_shape in expected.items():
        if name not in found:
            continue
        shape, dtype = found[name]
        if shape != expected_shape:
            problems.append(f"{name}: expected {list(expected_shape)}, found {list(shape)}")
        if dtype not in _DTYPES:
            problems.append(
                f"{name}: its dtype is {dtype}, expected one of {', '.join(_DTYPES)}: export the checkpoint before it was "
                "quantized, or save it in one of these"
            )
    if problems:
        lines = problems[:_LISTED]
        if len(problems) > _LISTED:
            lines.append(f"... and {len(problems) - _LISTED} more")
        raise CheckpointError("the weights are not the network that config.json describes:\n  " + "\n  ".join(lines))


def listed(names: Sequence[str]) -> str:
    """Join names, of many only the first ones."""
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", ... and {rest} more" if rest > 0 else "")
