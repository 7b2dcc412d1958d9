"""Strict reading of a checkpoint folder: every tensor accounted for by name, shape, dtype and finiteness.

The names are those of the published `model.safetensors` (148 tensors for 12 layers, flat, no prefix), and `projection.weight`
and `projection.bias` where a model has a projection. A loader that only logs what is missing gives another network:
transformers 5 does, silently. Each tensor may be float32, float16 or bfloat16; float32 holds all of their values exactly.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from moembed.errors import CheckpointError, MissingExtraError
from moembed.models.config import NomicMoeConfig
from moembed.models.weights import WEIGHTS_FILE, Weights, advice, find_weights, open_weights, paths_in

if TYPE_CHECKING:
    from moembed.models.network import NomicMoe

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # safetensors' names, and ours
_LISTED = 12


def expected_tensors(config: NomicMoeConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a checkpoint of this configuration holds, in file order."""
    hidden, ffn = config.hidden_size, config.ffn_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config.vocab_size, hidden),
        "embeddings.token_type_embeddings.weight": (1, hidden),
        "emb_ln.weight": (hidden,),
        "emb_ln.bias": (hidden,),
    }
    dense: dict[str, tuple[int, ...]] = {
        "mlp.fc1.weight": (ffn, hidden),
        "mlp.fc1.bias": (ffn,),
        "mlp.fc2.weight": (hidden, ffn),
        "mlp.fc2.bias": (hidden,),
    }
    stacked = (config.num_experts * config.expert_ffn_size, hidden)
    moe: dict[str, tuple[int, ...]] = {
        "mlp.router.layer.weight": (config.num_experts, hidden),
        "mlp.experts.mlp.w1": stacked,
        "mlp.experts.mlp.w2": stacked,
        "mlp.experts.bias": (hidden,),
    }
    block: dict[str, tuple[int, ...]] = {
        "attn.Wqkv.weight": (3 * hidden, hidden),
        "attn.Wqkv.bias": (3 * hidden,),
        "attn.out_proj.weight": (hidden, hidden),
        "attn.out_proj.bias": (hidden,),
        "norm1.weight": (hidden,),
        "norm1.bias": (hidden,),
        "norm2.weight": (hidden,),
        "norm2.bias": (hidden,),
    }
    for i in range(config.num_layers):
        mlp = moe if i in config.moe_layers else dense
        shapes |= {f"encoder.layers.{i}.{name}": shape for name, shape in (block | mlp).items()}
    if config.projection:
        shapes |= {"projection.weight": (hidden, hidden), "projection.bias": (hidden,)}
    return shapes


def parameter_count(config: NomicMoeConfig) -> int:
    """Number of parameters of the network."""
    total = 0
    for shape in expected_tensors(config).values():
        size = 1
        for dim in shape:
            size *= dim
        total += size
    return total


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


def stored_dtypes(folder: Path) -> dict[str, int]:
    """Number of tensors that a checkpoint stores in each dtype.

    Raises:
        CheckpointError: as `open_checkpoint`.
    """
    with open_checkpoint(folder, "np") as (_, weights):
        return dict(Counter(_DTYPES[dtype] for _, dtype in weights.shapes().values()))


def load_network(folder: Path) -> "NomicMoe":
    """Load a checkpoint into the PyTorch network, in float32 and evaluation mode.

    Raises:
        CheckpointError: as `open_checkpoint`, or a tensor holds NaN or infinity.
        MissingExtraError: torch or safetensors is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "export", "Loading a checkpoint") from None
    from moembed.models.network import NomicMoe

    with open_checkpoint(folder, "pt") as (config, weights):
        tensors = {name: weights.get_tensor(name).to(torch.float32) for name in expected_tensors(config)}
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(f"{folder} holds NaN or infinity in {_some(broken)}")
    with torch.device("meta"):
        network = NomicMoe(config)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.rebuild_rotary().eval().requires_grad_(False)


def _compare(config: NomicMoeConfig, found: dict[str, tuple[tuple[int, ...], str]]) -> None:
    expected = expected_tensors(config)
    in_file = {
        int(m[1]) for name in found if (m := re.match(r"encoder\.layers\.(\d+)\.mlp\.(?:router|experts)\.", name))
    }
    problems = []
    if in_file and in_file != set(config.moe_layers):
        problems.append(
            f"MoE layers: the names say {sorted(in_file)}, config.json's rule "
            f"(i % {config.moe_every_n_layers} == 1) says {list(config.moe_layers)}"
        )
    problems += [f"missing: {_some(names)}" for names in [[n for n in expected if n not in found]] if names]
    problems += [f"unexpected: {_some(names)}" for names in [[n for n in found if n not in expected]] if names]
    for name, shape in expected.items():
        got_shape, dtype = found.get(name, (shape, "F32"))
        if got_shape != shape:
            problems.append(f"{name}: expected {list(shape)}, found {list(got_shape)}")
        if dtype not in _DTYPES:
            problems.append(
                f"{name}: its dtype is {dtype}, expected one of {', '.join(_DTYPES)}: export the checkpoint before it was "
                "quantized, or save it in one of these"
            )
    if problems:
        shown = problems[:_LISTED] + ([f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else [])
        raise CheckpointError("the weights are not the network that config.json describes:\n  " + "\n  ".join(shown))


def _some(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", ... and {rest} more" if rest > 0 else "")
