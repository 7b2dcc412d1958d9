"""Strict reading of a checkpoint folder: every tensor accounted for by name, shape, dtype and finiteness.

The published `model.safetensors` has 148 tensors for 12 layers; a model with a projection has two more. A loader that accepts
missing tensors computes another network: transformers 5 does, silently. Each tensor may be float32, float16 or bfloat16; float32
holds all of their values exactly.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from moembed.errors import CheckpointError, extra
from moembed.models.config import NomicMoeConfig
from moembed.models.roles import ATTENTION, DENSE, EMBEDDINGS, MOE, NORMS, PROJECTION, Kind, Role, role
from moembed.models.weights import WEIGHTS_FILE, Weights, advice, find_weights, open_weights, paths_in

if TYPE_CHECKING:
    from moembed.models.network import NomicMoe

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # name in safetensors -> our name
_LISTED = 12


def expected_tensors(config: NomicMoeConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor that a checkpoint of this configuration holds, in file order."""
    hidden, ffn = config.hidden_size, config.ffn_size
    stacked = (config.num_experts * config.expert_ffn_size, hidden)
    shapes: dict[Kind, tuple[int, ...]] = {
        Kind.WORD_EMBEDDINGS: (config.vocab_size, hidden),
        Kind.TYPE_EMBEDDINGS: (1, hidden),
        Kind.EMBEDDING_NORM: (hidden,),
        Kind.EMBEDDING_NORM_BIAS: (hidden,),
        Kind.QKV: (3 * hidden, hidden),
        Kind.QKV_BIAS: (3 * hidden,),
        Kind.ATTENTION_OUT: (hidden, hidden),
        Kind.ATTENTION_OUT_BIAS: (hidden,),
        Kind.NORM1: (hidden,),
        Kind.NORM1_BIAS: (hidden,),
        Kind.NORM2: (hidden,),
        Kind.NORM2_BIAS: (hidden,),
        Kind.FC1: (ffn, hidden),
        Kind.FC1_BIAS: (ffn,),
        Kind.FC2: (hidden, ffn),
        Kind.FC2_BIAS: (hidden,),
        Kind.ROUTER: (config.num_experts, hidden),
        Kind.EXPERTS_W1: stacked,
        Kind.EXPERTS_W2: stacked,
        Kind.EXPERTS_BIAS: (hidden,),
        Kind.PROJECTION: (hidden, hidden),
        Kind.PROJECTION_BIAS: (hidden,),
    }
    roles = [Role(kind) for kind in EMBEDDINGS]
    for layer in range(config.num_layers):
        mlp = MOE if layer in config.moe_layers else DENSE
        roles += [Role(kind, layer) for kind in (*ATTENTION, *NORMS, *mlp)]
    if config.projection:
        roles += [Role(kind) for kind in PROJECTION]
    return {role.name: shapes[role.kind] for role in roles}


def parameter_count(config: NomicMoeConfig) -> int:
    """Return the number of parameters of the network."""
    return sum(prod(shape) for shape in expected_tensors(config).values())


@contextmanager
def open_checkpoint(folder: Path, framework: str) -> Iterator[tuple[NomicMoeConfig, Weights]]:
    """Open `config.json` and the weight files of a folder after checking names, shapes and dtypes.

    Args:
        folder: a checkpoint in the published layout.
        framework: `"pt"` or `"np"`, the kind of the tensors.

    Yields:
        The configuration and the open weights (memory-mapped).

    Raises:
        CheckpointError: the folder does not hold exactly this network.
        MissingExtraError: safetensors is not installed.
    """
    config = NomicMoeConfig.from_file(folder / "config.json")
    files = find_weights(folder)
    if files is None:
        raise CheckpointError(f"{folder} lacks {WEIGHTS_FILE}{advice(paths_in(folder))}")
    with open_weights(files, framework) as weights:
        _compare(config, weights.shapes())
        yield config, weights


def stored_dtypes(weights: Weights) -> str:
    """Describe the dtypes that tensors are stored in, such as "148 float32"."""
    counts = Counter(_DTYPES[dtype] for _, dtype in weights.shapes().values())
    return ", ".join(f"{count} {dtype}" for dtype, count in sorted(counts.items()))


def load_network(folder: Path) -> "NomicMoe":
    """Load a checkpoint into the PyTorch network, in float32 and evaluation mode.

    Raises:
        CheckpointError: as `open_checkpoint`, or a tensor holds NaN or infinity.
        MissingExtraError: torch or safetensors is not installed.
    """
    with extra("export", "Loading a checkpoint"):
        import torch

        from moembed.models.network import NomicMoe

    with open_checkpoint(folder, "pt") as (config, weights):
        tensors = {name: weights.get_tensor(name).to(torch.float32) for name in expected_tensors(config)}
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(f"{folder} holds NaN or infinity in {listed(broken)}: save it again with finite weights")
    with torch.device("meta"):
        network = NomicMoe(config)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.rebuild_rotary().eval().requires_grad_(False)


def _compare(config: NomicMoeConfig, found: dict[str, tuple[tuple[int, ...], str]]) -> None:
    expected = expected_tensors(config)
    roles = [tensor for name in found if (tensor := role(name)) is not None]
    moe_layers = {tensor.layer for tensor in roles if tensor.kind in MOE and tensor.layer is not None}
    problems = []
    if moe_layers and moe_layers != set(config.moe_layers):
        problems.append(
            f"MoE layers: the tensors have {sorted(moe_layers)}, the rule of config.json "
            f"(i % {config.moe_every_n_layers} == 1) gives {list(config.moe_layers)}"
        )
    if missing := [name for name in expected if name not in found]:
        problems.append(f"missing: {listed(missing)}")
    if unexpected := [name for name in found if name not in expected]:
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
