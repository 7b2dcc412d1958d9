"""llama.cpp through llama-cpp-python: the tensors its own converter writes, quantized by its own quantizer.

Its graph has no bias of the experts and takes the tanh form of GELU, so its vectors are those of another network; `compare.py`
checks them against torch without that bias. It reads ids, not text: the file has no vocabulary.
"""

import ctypes
from pathlib import Path

import llama_cpp
import numpy as np

from moembed.models.checkpoint import open_checkpoint
from peers.padded import Embed, Texts

ARCHITECTURE = "nomic-bert-moe"
TYPES = {"Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M}
# Its batches have one attention over all their tokens, so that more tokens at once are slower: 512 is its own default.
TOKENS_PER_BATCH = 512
_LAYER = {
    "attn.Wqkv": "attn_qkv",
    "attn.out_proj": "attn_output",
    "norm1": "attn_output_norm",
    "norm2": "layer_output_norm",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "mlp.router.layer": "ffn_gate_inp",
}


def version() -> str:
    """What is installed."""
    import gguf  # noqa: F401

    return f"llama-cpp-python {llama_cpp.__version__}"


def prepare(checkpoint: Path, folder: Path) -> None:
    """Write `F32.gguf`, then `Q8_0.gguf` and `Q4_K_M.gguf` from it."""
    whole = folder / "F32.gguf"
    if all((folder / f"{name}.gguf").exists() for name in TYPES):
        return
    _write(checkpoint, whole)
    for name, kind in TYPES.items():
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = kind
        made = folder / f"{name}.part"
        if llama_cpp.llama_model_quantize(bytes(whole), bytes(made), ctypes.byref(parameters)):
            raise RuntimeError(f"llama.cpp cannot quantize {whole} to {name}")
        made.rename(folder / f"{name}.gguf")
    whole.unlink()


def _write(checkpoint: Path, path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    with open_checkpoint(checkpoint, "np") as (config, handle):
        writer.add_context_length(512)
        writer.add_embedding_length(config.hidden_size)
        writer.add_block_count(config.num_layers)
        writer.add_feed_forward_length(config.ffn_size)
        writer.add_head_count(config.num_heads)
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_rope_freq_base(config.rotary_base)
        writer.add_causal_attention(False)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.top_k)
        writer.add_moe_every_n_layers(config.moe_every_n_layers)
        writer.add_tokenizer_model("none")
        writer.add_vocab_size(config.vocab_size)
        writer.add_token_type_count(1)
        for name in handle.keys():  # noqa: SIM118  (a handle, not a dict)
            if name.endswith("experts.bias"):
                continue
            tensor = handle.get_tensor(name).astype(np.float32)
            if ".experts.mlp." in name:
                tensor = tensor.reshape(config.num_experts, -1, config.hidden_size)
                if name.endswith("w2"):
                    tensor = np.ascontiguousarray(tensor.transpose(0, 2, 1))
            writer.add_tensor(_name(name), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name(name: str) -> str:
    whole = {
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "emb_ln.weight": "token_embd_norm.weight",
        "emb_ln.bias": "token_embd_norm.bias",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    if rest.startswith("mlp.experts.mlp."):
        return f"blk.{layer}.ffn_{'up' if rest.endswith('w1') else 'down'}_exps.weight"
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{_LAYER[module]}.{kind}"


def load(source: Path, mode: str, threads: int) -> Embed:
    """Open a file that `prepare` left in the folder `source`; `mode` is its type, then the most tokens of a batch."""
    name, _, most = mode.partition(",")
    most_tokens = int(most or TOKENS_PER_BATCH)
    llama_cpp.llama_log_set(_QUIET, None)
    model = llama_cpp.llama_model_load_from_file(bytes(source / f"{name}.gguf"), llama_cpp.llama_model_default_params())
    if not model:
        raise RuntimeError(f"llama.cpp cannot load {source / name}.gguf")
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = most_tokens
    parameters.n_seq_max = 64
    parameters.kv_unified = True
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.embeddings = True
    parameters.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_MEAN
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise RuntimeError("llama.cpp makes no context")
    width = llama_cpp.llama_model_n_embd(model)
    batch = llama_cpp.llama_batch_init(most_tokens, 0, 1)

    def embed(texts: Texts) -> np.ndarray:
        vectors = np.empty((len(texts), width), np.float32)
        first = 0
        while first < len(texts):
            last, tokens = first + 1, len(texts[first])
            while last < len(texts) and tokens + len(texts[last]) <= most_tokens and last - first < 64:
                tokens += len(texts[last])
                last += 1
            _fill(batch, texts[first:last])
            if llama_cpp.llama_encode(context, batch):
                raise RuntimeError(f"llama.cpp refuses {tokens} tokens")
            for i in range(last - first):
                found = llama_cpp.llama_get_embeddings_seq(context, i)
                vectors[first + i] = np.ctypeslib.as_array(found, (width,))
            first = last
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


def _fill(batch: llama_cpp.llama_batch, texts: Texts) -> None:
    at = 0
    for number, text in enumerate(texts):
        for position, token in enumerate(text.tolist()):
            batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, position, 1
            batch.seq_id[at][0], batch.logits[at] = number, 1
            at += 1
    batch.n_tokens = at


_QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)
