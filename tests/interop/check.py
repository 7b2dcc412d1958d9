"""Open a bundle with other people's loaders and compare their vectors with those of its graph.

Run by hand, in an environment of its own because optimum-onnx pins an old transformers:

    python -m venv X
    X/bin/pip install -r tests/interop/requirements.txt
    X/bin/python tests/interop/check.py BUNDLE

Every loader gets the bundle as it comes. sentence-transformers' ONNX backend needs optimum-onnx, which pins a transformers
that does not know the type nomic_bert: there the type is registered, and that is said, after it was refused.

BUNDLE is an fp32 bundle. moembed itself is not needed: the reference is the graph under plain onnxruntime and
tokenizers, one text at a time and so without padding. Nothing is downloaded.
"""

import argparse
import json
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime is imported

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

# Padding, and pooling in numpy or torch in place of the graph, may turn last bits of unit vectors, no more.
MAX_ABS = 1e-6
TEXTS = [
    "how do I run it?",
    "跟我讲讲嵌入，再多说一点，好让这一行更长",
    "",
    "Ein längerer Satz, damit die Texte eines Stapels verschieden lang sind und aufgefüllt werden müssen.",
    "embeddings of one text longer than the model reads " * 120,
]


def reference(bundle: Path, texts: list[str]) -> np.ndarray:
    """Vectors of the graph itself."""
    session = onnxruntime.InferenceSession(bundle / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(json.loads((bundle / "moembed.json").read_text("utf-8"))["max_tokens"])
    vectors = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        (vector,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        vectors.append(vector[0])
    return np.stack(vectors)


def optimum(bundle: Path, texts: list[str], _prompt: str) -> np.ndarray:
    from optimum.onnxruntime import ORTModelForFeatureExtraction
    from transformers import AutoTokenizer, PretrainedConfig

    # transformers knows the type nomic_bert from 5 on; optimum needs the fields, of any class.
    config = PretrainedConfig.from_pretrained(bundle)
    model = ORTModelForFeatureExtraction.from_pretrained(
        bundle, config=config, subfolder="onnx", file_name="model.onnx"
    )
    tokenizer = AutoTokenizer.from_pretrained(bundle)
    inputs = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    mean = (states * mask).sum(1) / mask.sum(1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def sentence_transformers(bundle: Path, texts: list[str], prompt: str) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(bundle), backend="onnx", device="cpu", model_kwargs={"file_name": "onnx/model.onnx"}
    )
    # The prompt by name, from the bundle's own file: the texts come with it in front.
    return model.encode([text.removeprefix(prompt) for text in texts], prompt_name="query" if prompt else None)


def fastembed(bundle: Path, texts: list[str], _prompt: str) -> np.ndarray:
    return _fastembed("bundle/pooled-by-the-graph", "sentence_embedding", "DISABLED", bundle, texts)


def fastembed_mean(bundle: Path, texts: list[str], _prompt: str) -> np.ndarray:
    return _fastembed("bundle/pooled-by-fastembed", "last_hidden_state", "MEAN", bundle, texts)


def _fastembed(name: str, output: str, pooling: str, bundle: Path, texts: list[str]) -> np.ndarray:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType[pooling],
        normalization=True,
        sources=ModelSource(hf=name),
        dim=json.loads((bundle / "config.json").read_text("utf-8"))["hidden_size"],
        model_file="onnx/model.onnx",
        additional_files=["onnx/model.onnx_data"],
        output_name=output,
    )
    return np.stack(list(TextEmbedding(name, specific_model_path=str(bundle)).embed(texts)))


LOADERS = {
    "optimum": optimum,
    "sentence-transformers": sentence_transformers,
    "fastembed": fastembed,
    "fastembed, its own mean": fastembed_mean,
}


def unknown_type() -> bool:
    """Whether this transformers does not know the bundle's type, which it does from 5 on."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return "nomic_bert" not in CONFIG_MAPPING


def register_nomic_bert() -> None:
    """Let AutoConfig of an old transformers read the bundle's config.json: the fields are needed, not the class."""
    from transformers import AutoConfig, PretrainedConfig

    AutoConfig.register("nomic_bert", type("NomicBertConfig", (PretrainedConfig,), {"model_type": "nomic_bert"}))


def main() -> int:
    """Print a line per loader; 1 if any of them failed."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("bundle", type=Path)
    bundle = arguments.parse_args().bundle.resolve()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    prompts = json.loads((bundle / "config_sentence_transformers.json").read_text("utf-8")).get("prompts", {})
    prompt = prompts.get("query", "")
    texts = [prompt + text for text in TEXTS]
    expected = reference(bundle, texts)
    failed = False
    for name, loader in LOADERS.items():
        try:
            try:
                found = np.asarray(loader(bundle, texts, prompt))
            except ValueError as error:
                # Said by a transformers that does not know the type; older bundles made it offer to run code instead.
                if "does not recognize this architecture" not in str(error) or not unknown_type():
                    raise
                register_nomic_bert()
                print(f"{name}: opens only when the type nomic_bert is registered", flush=True)
                found = np.asarray(loader(bundle, texts, prompt))
        except Exception as error:  # a loader may fail in any way; the others still have their turn
            traceback.print_exc()
            print(f"{name}: FAIL ({type(error).__name__})", flush=True)
            failed = True
            continue
        same_shape = found.shape == expected.shape
        difference = float(np.abs(found - expected).max()) if same_shape else np.inf
        passed = difference <= MAX_ABS  # false for NaN
        failed |= not passed
        detail = f"max-abs {difference:.1e}" if same_shape else f"shape {found.shape}, expected {expected.shape}"
        print(f"{name}: {'pass' if passed else 'FAIL'} ({detail})", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
