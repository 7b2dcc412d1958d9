"""Tensors that a network does not have: what kind of model a file with them is, or by which other names it has the network's."""

from collections import Counter
from collections.abc import Collection, Sequence

# Beginning or part of a tensor's name -> what a file with such a tensor is.
_KINDS = {
    "classifier.": "a classifier or reranker, which scores texts or pairs of texts and makes no vector of one",
    "score.": "a classifier or reranker, which scores texts or pairs of texts and makes no vector of one",
    "cls.predictions.": "a language model, or a sparse encoder such as SPLADE, which makes no dense vector of a text",
    "lm_head.": "a language model, or a sparse encoder such as SPLADE, which makes no dense vector of a text",
    "linear.weight": "a model with a layer behind the encoder, such as ColBERT, which makes a vector of every token",
    "lora_": "an adapter (LoRA): merge it into its base model with merge_and_unload() and save the result",
}
# Last word of a name in old checkpoints of TensorFlow -> that of today.
_OLD_WORDS = {"gamma": "weight", "beta": "bias"}


def kinds(names: Sequence[str]) -> list[str]:
    """Describe the kinds of models that have tensors of these names; a line for each kind."""
    found: dict[str, str] = {}
    for part, meaning in _KINDS.items():
        for name in names:
            if part in name:
                found.setdefault(meaning, f"{name}: this is {meaning}")
    return list(found.values())


def other_names(unexpected: Sequence[str], missing: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Find tensors of the network that a file has by another name.

    Args:
        unexpected: names in the file that the network has not.
        missing: names of the network that the file has not.

    Returns:
        name in the file -> name in the network; and what to do, a line for each way of naming.
    """
    renamed: dict[str, str] = {}
    prefixes, old = Counter[str](), []
    for name in unexpected:
        head, _, last = name.rpartition(".")
        if (current := f"{head}.{_OLD_WORDS.get(last, last)}") != name and current in missing:
            renamed[name] = current
            old.append(name)
        elif inner := _inner(name, missing):
            renamed[name] = inner
            prefixes[name.removesuffix(inner)] += 1
    for name in unexpected:  # those that a network may have
        prefix = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        if prefix and name not in renamed:
            renamed[name] = name.removeprefix(prefix)
            prefixes[prefix] += 1
    lines = [
        f"{count} tensors have names behind {prefix!r}, and others have not: save the network inside this wrapper"
        for prefix, count in prefixes.items()
    ]
    if old:
        lines.append(
            f"{len(old)} tensors have names of old checkpoints, such as {old[0]} for {renamed[old[0]]}: load them with "
            "transformers and save_pretrained"
        )
    return renamed, lines


def _inner(name: str, missing: Collection[str]) -> str | None:
    """Return the end of a name, behind a dot, that is the name of a missing tensor; None if there is none."""
    words = name.split(".")
    return next((end for i in range(1, len(words)) if (end := ".".join(words[i:])) in missing), None)
