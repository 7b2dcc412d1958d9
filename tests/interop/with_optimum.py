import json
from pathlib import Path

import numpy as np
from onnxruntime import SessionOptions
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer, PretrainedConfig


def embed(bundle: Path, graph: str, queries: list[str]) -> np.ndarray:
    options = SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    model = ORTModelForFeatureExtraction.from_pretrained(
        bundle,
        config=PretrainedConfig.from_pretrained(bundle),  # transformers before 5 does not know the type nomic_bert
        subfolder="onnx",
        file_name=graph,
        session_options=options,
    )
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    prompts = json.loads((bundle / "config_sentence_transformers.json").read_text("utf-8"))["prompts"]
    texts = [prompts.get("query", "") + query for query in queries]
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    pooling = json.loads((bundle / "1_Pooling" / "config.json").read_text("utf-8"))
    pooled = states[:, 0] if pooling["pooling_mode_cls_token"] else (states * mask).sum(axis=1) / mask.sum(axis=1)
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
