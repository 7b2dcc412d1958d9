"""ONNX Runtime's own dynamic quantization: our fp32 graph with its functions inlined, then `quantize_dynamic`.

It takes Gemm for MatMul and so covers all linear layers and experts, and the router, which it may not lose: 8 scores of 2 that
are chosen. Activations have one scale for the whole tensor, so vectors depend on the batch. Attention stays in float32. Without
inlining it finds nothing to quantize, because the functions hide their operators.
"""

import shutil
from pathlib import Path

import numpy as np

from moembed.inference.session import import_onnxruntime
from peers.padded import Embed, Texts, padded

SOURCE = "fp32"  # what `prepare` reads


def version() -> str:
    """What is installed."""
    import onnx  # noqa: F401

    return f"onnxruntime {import_onnxruntime().__version__}"


def prepare(bundle: Path, folder: Path) -> None:
    """Write `dynamic/model.onnx` from the graph of an fp32 bundle."""
    import onnx
    from onnx import inliner
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if (folder / "dynamic").exists():
        return
    model = inliner.inline_local_functions(onnx.load(bundle / "onnx" / "model.onnx"))
    del model.graph.value_info[:]  # some values have new names
    inlined, partial = folder / "inlined.onnx", folder / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    inlined.with_suffix(".data").unlink(missing_ok=True)  # onnx would append to it
    onnx.save(model, inlined, save_as_external_data=True, location="inlined.data")
    del model
    quantize_dynamic(
        inlined,
        partial / "model.onnx",
        weight_type=QuantType.QInt8,
        per_channel=True,
        use_external_data_format=True,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
    )
    partial.rename(folder / "dynamic")
    for part in folder.glob("inlined.*"):
        part.unlink()


def load(source: Path, mode: str, threads: int) -> Embed:
    """Open a graph that `prepare` left in the folder `source`; `mode` is its folder there."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        str(source / mode / "model.onnx"), options, providers=["CPUExecutionProvider"]
    )

    def embed(texts: Texts) -> np.ndarray:
        ids, mask = padded(texts)
        (vectors,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(vectors)

    return embed
