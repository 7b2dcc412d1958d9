import json
from pathlib import Path

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType


def embed(bundle: Path, graph: str, queries: list[str]) -> np.ndarray:
    TextEmbedding.add_custom_model(
        model=bundle.name,
        model_file=f"onnx/{graph}",
        output_name="sentence_embedding",
        pooling=PoolingType.DISABLED,
        normalization=False,
        dim=json.loads((bundle / "config.json").read_text("utf-8"))["hidden_size"],
        sources=ModelSource(hf=bundle.name),
    )
    model = TextEmbedding(bundle.name, specific_model_path=str(bundle), providers=["CPUExecutionProvider"])
    prompts = json.loads((bundle / "config_sentence_transformers.json").read_text("utf-8"))["prompts"]
    return np.stack(list(model.embed([prompts.get("query", "") + query for query in queries])))
