from pathlib import Path

import numpy as np
from onnxruntime import SessionOptions
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, PretrainedConfig

# transformers before 5 does not know the type nomic_bert. Only the fields of config.json are needed.
AutoConfig.register("nomic_bert", type("NomicBertConfig", (PretrainedConfig,), {"model_type": "nomic_bert"}))


def embed(bundle: Path, graph: str, queries: list[str]) -> np.ndarray:
    options = SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    onnx = {"file_name": f"onnx/{graph}", "provider": "CPUExecutionProvider", "session_options": options}
    model = SentenceTransformer(str(bundle), backend="onnx", device="cpu", model_kwargs=onnx)
    return model.encode(queries, prompt=model.prompts.get("query"))
