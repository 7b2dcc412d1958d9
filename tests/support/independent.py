"""Third implementation of the network, for published examples of random checkpoints: NumPy float64, one token at a time.

It shares no code with moembed. It is written from the description of the model: embeddings, post-norm blocks, rotary halves, a
softmax over all experts before the choice, weights that are not renormalized, one bias after the sum.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer


class Network:
    """Network of a checkpoint folder; `tanh` computes the approximation of GELU that some runtimes use."""

    def __init__(self, folder: Path, *, tanh: bool = False) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {name: value.astype(float) for name, value in load_file(folder / "model.safetensors").items()}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.gelu = tanh_gelu if tanh else _erf_gelu

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    def run(self, ids: list[int]) -> tuple[np.ndarray, dict[int, list[dict[int, float]]], float]:
        """Last hidden states `[T, hidden]`; MoE layer -> for each token expert -> weight; smallest margin of a choice."""
        config, margins = self.config, [math.inf]
        x = [self._norm(self["embeddings.word_embeddings.weight"][i] + self._type_row(), "emb_ln") for i in ids]
        routing: dict[int, list[dict[int, float]]] = {}
        for layer in range(config["n_layer"]):
            name = f"encoder.layers.{layer}"
            attended = self._attend(x, f"{name}.attn")
            h = [self._norm(a + b, f"{name}.norm1") for a, b in zip(attended, x, strict=True)]
            if layer % config["moe_every_n_layers"] == 1:
                routing[layer] = [self._route(token, f"{name}.mlp.router.layer.weight", margins) for token in h]
                mixed = [
                    self._experts(token, w, f"{name}.mlp.experts") for token, w in zip(h, routing[layer], strict=True)
                ]
            else:
                mixed = [self._dense(token, f"{name}.mlp") for token in h]
            x = [self._norm(a + b, f"{name}.norm2") for a, b in zip(mixed, h, strict=True)]
        return np.array(x), routing, min(margins)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name]

    def _type_row(self) -> np.ndarray:
        return self["embeddings.token_type_embeddings.weight"][0]

    def _norm(self, x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean()
        scaled = centred / math.sqrt(float(np.mean(centred * centred)) + self.config["layer_norm_epsilon"])
        return scaled * self[f"{name}.weight"] + self[f"{name}.bias"]

    def _attend(self, x: list[np.ndarray], name: str) -> list[np.ndarray]:
        heads, width = self.config["n_head"], self.config["n_embd"]
        dim, results = width // heads, []
        projected = [self[f"{name}.Wqkv.weight"] @ token + self[f"{name}.Wqkv.bias"] for token in x]
        for query in range(len(x)):
            parts = []
            for head in range(heads):
                at = slice(head * dim, (head + 1) * dim)
                q = self._turned(projected[query][:width][at], query)
                keys = [self._turned(p[width : 2 * width][at], k) for k, p in enumerate(projected)]
                scores = [float(q @ key) / math.sqrt(dim) for key in keys]
                shares = _softmax(scores)
                parts.append(sum(s * p[2 * width :][at] for s, p in zip(shares, projected, strict=True)))
            results.append(self[f"{name}.out_proj.weight"] @ np.concatenate(parts) + self[f"{name}.out_proj.bias"])
        return results

    def _turned(self, vector: np.ndarray, position: int) -> np.ndarray:
        half, turned = len(vector) // 2, np.empty_like(vector)
        for i in range(half):
            angle = position * self.config["rotary_emb_base"] ** (-2 * i / len(vector))
            a, b = vector[i], vector[i + half]
            turned[i] = a * math.cos(angle) - b * math.sin(angle)
            turned[i + half] = b * math.cos(angle) + a * math.sin(angle)
        return turned

    def _dense(self, x: np.ndarray, name: str) -> np.ndarray:
        inner = self.gelu(self[f"{name}.fc1.weight"] @ x + self[f"{name}.fc1.bias"])
        return self[f"{name}.fc2.weight"] @ inner + self[f"{name}.fc2.bias"]

    def _route(self, x: np.ndarray, name: str, margins: list[float]) -> dict[int, float]:
        shares, count = _softmax(list(self[name] @ x)), self.config["moe_top_k"]
        order = sorted(range(len(shares)), key=lambda expert: -shares[expert])
        margins.append(shares[order[count - 1]] - shares[order[count]])
        return {expert: shares[expert] for expert in order[:count]}

    def _experts(self, x: np.ndarray, weights: dict[int, float], name: str) -> np.ndarray:
        rows, total = self.config["n_inner"], np.zeros(len(x))
        for expert, weight in weights.items():
            w1, w2 = (self[f"{name}.mlp.{part}"][expert * rows : (expert + 1) * rows] for part in ("w1", "w2"))
            total += weight * (self.gelu(w1 @ x) @ w2)
        return total + self[f"{name}.bias"]


def published(folder: Path, prompts: dict[str, str], tolerances: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Examples of a checkpoint as a spec has them: of the kinds, with the digits and tolerances, of the published ones.

    The margin of every choice of experts is above 1e-3, so that no implementation decides otherwise.
    """
    exact, approximate = Network(folder), Network(folder, tanh=True)

    def text(words: str, prompt: str = "") -> dict[str, Any]:
        return {"text": words, "prompt": prompt, "ids": exact.ids(prompts.get(prompt, "") + words)}

    def run(network: Network, which: dict[str, Any]) -> tuple[np.ndarray, dict[int, list[dict[int, float]]]]:
        states, routing, margin = network.run(which["ids"])
        assert margin > 1e-3, f"a near tie in {which}: choose another text"
        return states, routing

    first, second = text("Hello!", "passage"), text("¡Hola!", "passage")
    a, b = (run(exact, which)[0].mean(axis=0) for which in (first, second))
    cosine = round(float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)), 4)
    unit = np.round(b / math.sqrt(float(b @ b)), 4)
    bare, query = text("Deep Learning is..."), text("thunderstorms", "query")
    states, routing = run(exact, query)
    rounded = np.round(states, 4)
    ranked = [sorted(token.items(), key=lambda item: -item[1]) for token in routing[1]]
    head = {"source": "tests/support/independent.py"}
    return {
        "similarity": [
            {"name": "cosine", "first": first, "second": second, "cosine": cosine} | head | tolerances["similarity"],
        ],
        "pooled": [
            {"name": "pooled", "text": bare, "every": 5, "values": run(approximate, bare)[0].mean(axis=0)[::5].tolist()}
            | head
            | tolerances["pooled"],
        ],
        "embeddings": [
            {"name": "unit", "text": second, "first": unit[:3].tolist(), "last": unit[-3:].tolist()}
            | head
            | tolerances["embeddings"],
        ],
        "hidden_states": [
            {
                "name": "hidden",
                "text": query,
                "tokens": [0, 1, 2, -2, -1],
                "first": rounded[[0, 1, 2, -2, -1], :3].tolist(),
                "last": rounded[[0, 1, 2, -2, -1], -3:].tolist(),
            }
            | head
            | tolerances["hidden_states"],
        ],
        "routing": [
            {
                "name": "experts",
                "text": query,
                "layer": 1,
                "expert_indices": [[token[rank][0] for token in ranked] for rank in range(len(ranked[0]))],
                "weights": [[round(token[rank][1], 2) for token in ranked] for rank in range(len(ranked[0]))],
            }
            | head
            | tolerances["routing"],
        ],
    }


def _softmax(values: list[float]) -> list[float]:
    top = max(values)
    exponentials = [math.exp(value - top) for value in values]
    return [value / sum(exponentials) for value in exponentials]


@np.vectorize
def _erf_gelu(x: float) -> float:
    return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))


@np.vectorize
def tanh_gelu(x: float) -> float:
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
