"""`python -m moembed.train.release.card BUNDLE CHECKPOINT TEXTS...`: the model card, written from what was measured.

Figures are those of the bundle's certificate (`moembed evaluate --certify` put them there); the recipe and what training found
are those of the checkpoint's `recipe.json`; which experts read which languages is counted anew. Only words are written by hand,
in `card.md` beside this file.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Quality
from moembed.embedder import Embedder
from moembed.errors import InputError, MissingExtraError, MoembedError, OutputError
from moembed.files.paths import replacing_file
from moembed.train.data import corpus
from moembed.train.release.publish import RECIPE_FILE

CARD_FILE, PLOT_FILE = "CARD.md", "routing.png"
TEXTS = 40  # of each language
_KINDS = {"q": "query", "d": "passage"}
Loads = dict[str, NDArray[np.int64]]


def loads(embedder: Embedder, paths: Sequence[Path], texts: int) -> Loads:
    """How many tokens each expert read: language -> `[layers, experts]`.

    Args:
        embedder: of a bundle with experts.
        paths: JSONL files, as for training.
        texts: of each language, the first ones; languages with fewer are left out.

    Raises:
        InputError: a file cannot be read, or no language has so many texts.
    """
    drawn: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in paths:
        for number, row in corpus.rows(path):
            try:
                language, text, task = str(row["l"]), str(row["t"]), _KINDS[str(row["k"])]
            except KeyError as error:
                raise InputError(f'{path}:{number}: expected "l", "t" and "k" ("q" or "d"), found {row}') from error
            own = drawn[language]
            if len(own) < texts and len(embedder.tokens(text, prompt_name=task)) <= embedder.max_tokens:
                own.append((text, task))
    found = {
        language: sum((embedder.routing(text, prompt_name=task).load for text, task in own), np.int64(0))
        for language, own in sorted(drawn.items())
        if len(own) == texts
    }
    if not found:
        raise InputError(f"no language has {texts} texts: name other files, or fewer texts")
    return {language: np.asarray(load) for language, load in found.items()}


def entropy(load: NDArray[np.int64]) -> float:
    """Of the experts' shares `[experts]`, in bits."""
    shares = load[load > 0] / load.sum()
    return float(-(shares * np.log2(shares)).sum())


def card(bundle: Bundle, made: Mapping[str, Any], counted: Loads, layers: Sequence[int]) -> str:
    """The card's text.

    Args:
        bundle: with a certificate that has quality.
        made: the checkpoint's `recipe.json`.
        counted: from `loads`.
        layers: index of every layer that has experts.
    """
    manifest, student = bundle.manifest, made["recipe"]["student"]
    words = resources.files("moembed.train.release").joinpath("card.md").read_text("utf-8")
    return words.format(
        name=manifest.name,
        size=f"{bundle.size / 1e6:.1f}",
        recipe=manifest.recipe,
        hidden=manifest.hidden_size,
        max_tokens=manifest.max_tokens,
        vocabulary=f"{student['vocabulary']:,}",
        experts=student["experts"],
        top_k=student["top_k"],
        layers=" and ".join(map(str, layers)),
        widths=", ".join(map(str, student["dims"])),
        weights=made["sha256"],
        texts="\n".join(_files(made)),
        steps="\n".join(_steps(made)),
        quality="\n".join(_quality(manifest.certificate.quality)),
        routing="\n".join(_routing(counted, layers)),
        plot=PLOT_FILE,
    )


def _files(made: Mapping[str, Any]) -> Iterator[str]:
    """What the model was made from: its texts, and the model it was begun from, if any."""
    for name, digest in made["texts"].items():
        yield f"| `{name}` | `{digest}` |"
    for name, digest in made.get("start", {}).items():
        yield f"| begun from `{name}` | `{digest}` |"


def _steps(made: Mapping[str, Any]) -> Iterator[str]:
    """What each kind of gradient steps did to agreement with the teacher on held-out text."""
    for name in ("distillation", "rotation", "contrast"):
        if name in made:
            first, last = made[name][0], made[name][-1]
            shown = (f"{figure} {first[figure]} -> {last[figure]}" for figure in first if figure != "step")
            yield f"| {name} | {last['step']} | {'; '.join(shown)} |"


def _quality(quality: Mapping[str, Quality]) -> Iterator[str]:
    for name, one in sorted(quality.items()):
        yield f"| {name} | {one.figure} | {100 * one.value:.2f} | {100 * (one.value - one.baseline):+.2f} |"
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name, one in quality.items():
        family = name.split("/")[0] if "/" in name else name.split("-")[0]
        groups[family + " across languages" * (":" in name), one.figure].append(one.value)
    for (family, figure), values in sorted(groups.items()):
        if len(values) > 1:
            yield f"| mean of {len(values)} sets of {family} | {figure} | {100 * fmean(values):.2f} | |"


def _routing(counted: Loads, layers: Sequence[int]) -> Iterator[str]:
    total = np.asarray(sum(counted.values()))
    for row, layer in enumerate(layers):
        shares = total[row] / total[row].sum()
        between = [entropy(load[row]) for load in counted.values()]
        yield (
            f"| {layer} | {', '.join(f'{share:.0%}' for share in shares)} | {entropy(total[row]):.2f} of "
            f"{math.log2(len(shares)):.0f} | {fmean(between):.2f} | {_favourites(counted, row)} |"
        )


def _favourites(counted: Loads, row: int) -> str:
    """The language whose share of each expert is furthest above the mean language's."""
    languages = list(counted)
    shares = np.array([load[row] / load[row].sum() for load in counted.values()])
    above = (shares / shares.mean(0).clip(1e-9)).argmax(0)
    return ", ".join(languages[i] for i in above)


def draw(path: Path, counted: Loads, layers: Sequence[int]) -> None:
    """Write a PNG: a panel per layer with experts, the share of every language's tokens that each expert read.

    Raises:
        OutputError: the file cannot be written; what was there stays.
        MissingExtraError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "eval", "The plot") from error
    figure = Figure(figsize=(1.5 + 3.2 * len(layers), 1.5 + 0.17 * len(counted)), layout="constrained")
    for row, (panel, layer) in enumerate(zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True)):
        shares = np.array([load[row] / load[row].sum() for load in counted.values()])
        image = panel.imshow(100 * shares, aspect="auto", cmap="viridis", vmin=0)
        panel.set(title=f"layer {layer}", xlabel="expert", xticks=range(shares.shape[1]))
        panel.set_yticks(range(len(counted)), list(counted), fontsize=7)
        figure.colorbar(image, ax=panel, label="% of the language's choices")
    with replacing_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def write(folder: Path, checkpoint: Path, paths: Sequence[Path], out: Path, *, texts: int) -> None:
    """Write card and plot.

    Args:
        folder: the INT8 bundle.
        checkpoint: what it was made from.
        paths: see `loads`.
        out: folder for both files.
        texts: see `loads`.

    Raises:
        InputError: the bundle has no quality, was made from another checkpoint, or a text cannot be used.
        OutputError: a file cannot be written.
        BundleError: the bundle cannot be used.
        MissingExtraError: matplotlib is missing.
    """
    bundle = Bundle.open(folder)
    if not bundle.manifest.certificate.quality:
        raise InputError(f"{folder} has no quality in its certificate: `moembed evaluate --certify` measures it")
    made = recipe_of(checkpoint)
    if made["sha256"] != bundle.manifest.source.weights_sha256:
        raise InputError(f"{folder} was not made from {checkpoint}: the digests of its weights differ")
    embedder = Embedder.from_pretrained(folder)
    layers = embedder.routing("a text", prompt="").layers
    counted = loads(embedder, paths, texts)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from error
    draw(out / PLOT_FILE, counted, layers)
    with replacing_file(out / CARD_FILE) as partial:
        partial.write_text(card(bundle, made, counted, layers), "utf-8")


def recipe_of(checkpoint: Path) -> dict[str, Any]:
    """How a checkpoint was made.

    Raises:
        InputError: it does not say.
    """
    try:
        made: dict[str, Any] = json.loads((checkpoint / RECIPE_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{checkpoint / RECIPE_FILE}: {error}; name a checkpoint that training made") from error
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and write card and plot."""
    parser = argparse.ArgumentParser(prog="python -m moembed.train.release.card", description=__doc__)
    parser.add_argument("bundle", type=Path, help="the INT8 bundle, with quality in its certificate")
    parser.add_argument("checkpoint", type=Path, help="the checkpoint that training made")
    parser.add_argument("text", type=Path, nargs="+", help="JSONL files, as for training, in which experts are counted")
    parser.add_argument("-o", "--output", type=Path, required=True, help=f"folder for {CARD_FILE} and {PLOT_FILE}")
    parser.add_argument("--texts", type=int, default=TEXTS, help="texts of each language (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        write(arguments.bundle, arguments.checkpoint, arguments.text, arguments.output, texts=arguments.texts)
    except MoembedError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
