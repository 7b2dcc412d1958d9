"""Strict reading of a checkpoint folder: every tensor accounted for by name, shape, dtype and finiteness.

The names are those of the published `model.safetensors` (148 tensors for 12 layers, flat, no prefix), and `projection.weight`
and `projection.bias` where a model has a projection. A loader that only logs what is missing gives another network:
transformers 5 does, silently.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.errors import CheckpointError, MissingExtraError
from moembed.models.config import NomicMoeConfig

if TYPE_CHECKING:
    from moembed.models.network import NomicMoe

WEIGHTS_FILE = "model.safetensors"
_SAFETENSORS_DTYPE = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
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
def open_checkpoint(folder: Path, framework: str) -> Iterator[tuple[NomicMoeConfig, Any]]:
    """Open `config.json` and `model.safetensors` of a folder after checking names, shapes and dtypes.

    Args:
        folder: a checkpoint in the published layout.
        framework: `"pt"` or `"np"`, the kind of tensor that the handle's `get_tensor(name)` returns.

    Yields:
        The configuration and the open safetensors handle (memory-mapped).

    Raises:
        CheckpointError: the folder does not hold exactly this network.
        MissingExtraError: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingExtraError("safetensors", "export", "Reading a checkpoint") from None
    config = NomicMoeConfig.from_file(folder / "config.json")
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"no {WEIGHTS_FILE} in {folder}{_other_weights(folder)}")
    try:
        with safe_open(path, framework=framework) as handle:
            found = {}
            for name in handle.keys():  # noqa: SIM118  (a handle, not a dict)
                view = handle.get_slice(name)
                found[name] = (tuple(view.get_shape()), view.get_dtype())
            _compare(config, found)
            yield config, handle
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file (truncated or corrupt?): {error}") from error


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

    with open_checkpoint(folder, "pt") as (config, handle):
        tensors = {name: handle.get_tensor(name).to(torch.float32) for name in expected_tensors(config)}
    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise CheckpointError(f"{folder / WEIGHTS_FILE} holds NaN or infinity in {_some(broken)}")
    with torch.device("meta"):
        network = NomicMoe(config)
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.rebuild_rotary().eval().requires_grad_(False)


def _compare(config: NomicMoeConfig, found: dict[str, tuple[tuple[int, ...], str]]) -> None:
    dtype = _SAFETENSORS_DTYPE[config.dtype]
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
        if name in found and found[name] != (shape, dtype):
            got_shape, got_dtype = found[name]
            problems.append(f"{name}: expected {list(shape)} {dtype}, found {list(got_shape)} {got_dtype}")
    if problems:
        shown = problems[:_LISTED] + ([f"... and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else [])
        raise CheckpointError(f"{WEIGHTS_FILE} is not the network that config.json describes:\n  " + "\n  ".join(shown))


def _some(names: list[str]) -> str:
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f", ... and {rest} more" if rest > 0 else "")


def _other_weights(folder: Path) -> str:
    if (folder / "pytorch_model.bin").exists():
        return "; pytorch_model.bin is a pickle, which is never loaded: convert it to safetensors"
    if (folder / f"{WEIGHTS_FILE}.index.json").exists():
        return "; it is sharded: merge the shards into one file (the published model is one file)"
    if any(folder.glob("*.gguf")):
        return "; a GGUF cannot be the source: it has lost the expert bias"
    return ""
