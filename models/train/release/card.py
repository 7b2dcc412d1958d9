"""Model card: prose from `card.md` in this folder, filled with measured figures (`moembed card`).

Figures come from the bundle's certificate, where `moembed evaluate --certify` puts them. The recipe and the results of training
come from the checkpoint's `recipe.json`. Expert loads by language are measured on texts.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Quality
from moembed.embedder import Embedder
from moembed.errors import InputError, OutputError, extra
from moembed.evaluation.text_lines import json_objects
from moembed.files.paths import replacing_file
from moembed.files.records import read_record
from moembed.train.recipe import RECIPE_FILE, Recipe

CARD_FILE, PLOT_FILE = "CARD.md", "routing.png"
TEXTS_PER_LANGUAGE = 40
_QUALITY_HEADER = "| set | figure | value | INT8 |\n|---|---|---|---|\n"
_PROMPT_NAMES = {"q": "query", "d": "passage"}
Loads = dict[str, NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Fields of a checkpoint's `recipe.json` that a release needs.

    Attributes:
        recipe: the recipe.
        texts: sha256 of every file of texts and pairs, by name.
        sha256: of the checkpoint's weights.
        init_from: sha256 of every file of the initial model, by name; empty for a conversion.
        distillation: results of every checkpoint of distillation.
        projection: results before and after training the projection on pairs.
        contrastive: results of every checkpoint of contrastive training.
    """

    recipe: Recipe
    texts: dict[str, str]
    sha256: str
    init_from: dict[str, str] = field(default_factory=dict)
    distillation: tuple[dict[str, float], ...] = ()
    projection: tuple[dict[str, float], ...] = ()
    contrastive: tuple[dict[str, float], ...] = ()


def read_report(checkpoint: Path) -> TrainingReport:
    """Read how a checkpoint was trained.

    Raises:
        InputError: its `recipe.json` is missing, or was not written by this version of `moembed train`.
    """
    path = checkpoint / RECIPE_FILE
    remedy = "name a checkpoint written by this version of `moembed train`"
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; {remedy}") from error
    if isinstance(raw, dict):
        names = {one.name for one in fields(TrainingReport)}
        raw = {name: value for name, value in raw.items() if name in names}
    return read_record(TrainingReport, raw, str(path), error=InputError, remedy=remedy, use_defaults=True)


def expert_loads(embedder: Embedder, paths: Sequence[Path], texts: int) -> Loads:
    """Count the tokens routed to each expert: language -> `[layers, experts]`.

    Args:
        embedder: of a bundle with experts.
        paths: JSONL files, as for training.
        texts: number of texts per language, the first ones; languages with fewer are left out.

    Raises:
        InputError: a file cannot be read, or no language has so many texts.
    """
    sampled: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in paths:
        for number, row in json_objects(path):
            try:
                language, text, prompt_name = str(row["l"]), str(row["t"]), _PROMPT_NAMES[str(row["k"])]
            except KeyError as error:
                raise InputError(f'{path}:{number}: expected "l", "t" and "k" ("q" or "d"), found {row}') from error
            own = sampled[language]
            if len(own) < texts and len(embedder.tokens(text, prompt_name=prompt_name)) <= embedder.max_tokens:
                own.append((text, prompt_name))
    loads = {
        language: sum((embedder.routing(text, prompt_name=name).load for text, name in own), np.int64(0))
        for language, own in sorted(sampled.items())
        if len(own) == texts
    }
    if not loads:
        raise InputError(f"no language has {texts} texts: name other files, or fewer texts")
    return {language: np.asarray(load) for language, load in loads.items()}


def entropy(load: NDArray[np.int64]) -> float:
    """Return the entropy of the experts' shares `[experts]`, in bits."""
    shares = load[load > 0] / load.sum()
    return float(-(shares * np.log2(shares)).sum())


def render(bundle: Bundle, report: TrainingReport, loads: Loads, layers: Sequence[int]) -> str:
    """Return the text of the card.

    Args:
        bundle: with quality in its certificate.
        report: of the checkpoint.
        loads: from `expert_loads`.
        layers: index of every layer with experts.
    """
    manifest, student = bundle.manifest, report.recipe.student
    template = resources.files("moembed.train.release").joinpath("card.md").read_text("utf-8")
    return template.format(
        name=manifest.name,
        size=f"{bundle.size / 1e6:.1f}",
        recipe=manifest.recipe,
        hidden=manifest.hidden_size,
        max_tokens=manifest.max_tokens,
        vocabulary=f"{student.vocabulary_size:,}",
        experts=student.num_experts,
        top_k=student.top_k,
        layers=" and ".join(map(str, layers)),
        widths=", ".join(map(str, student.dims)),
        weights=report.sha256,
        texts="\n".join(_file_rows(report)),
        steps="\n".join(_step_rows(report)),
        quality="\n".join(_quality_rows(manifest.certificate.quality)),
        routing="\n".join(_routing_rows(loads, layers)),
        plot=PLOT_FILE,
    )


def renew_quality(card_dir: Path, bundle: Bundle) -> None:
    """Write the quality of a bundle into the card, in place of the rows that it has.

    Raises:
        InputError: the card has no table of quality.
        OutputError: the card cannot be written.
    """
    path = card_dir / CARD_FILE
    try:
        before, header, rest = path.read_text("utf-8").partition(_QUALITY_HEADER)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name the folder of the card") from error
    if not header:
        raise InputError(f"{path} has no table that begins with {_QUALITY_HEADER.splitlines()[0]}: name another card")
    rows = "\n".join(_quality_rows(bundle.manifest.certificate.quality))
    with replacing_file(path) as partial:
        partial.write_text(before + header + rows + rest[rest.index("\n\n") :], "utf-8")


def _file_rows(report: TrainingReport) -> Iterator[str]:
    for name, digest in report.texts.items():
        yield f"| `{name}` | `{digest}` |"
    for name, digest in report.init_from.items():
        yield f"| initial model, `{name}` | `{digest}` |"


def _step_rows(report: TrainingReport) -> Iterator[str]:
    for name in ("distillation", "projection", "contrastive"):
        if results := getattr(report, name):
            first, last = results[0], results[-1]
            changes = (f"{figure} {first[figure]} -> {last[figure]}" for figure in first if figure != "step")
            yield f"| {name} | {last['step']:.0f} | {'; '.join(changes)} |"


def _quality_rows(quality: Mapping[str, Quality]) -> Iterator[str]:
    groups: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name, one in sorted(quality.items()):
        yield f"| {name} | {one.figure} | {100 * one.value:.2f} | {100 * (one.value - one.baseline):+.2f} |"
        groups[_family(name), one.figure].append(one.value)
    for (family, figure), values in sorted(groups.items()):
        if len(values) > 1:
            yield f"| mean of {len(values)} sets of {family} | {figure} | {100 * fmean(values):.2f} | |"


def _family(name: str) -> str:
    """Return the group of a set: `stsb-multi/de-dev` to `stsb-multi`, `xquad-de:xquad-en` to `xquad across languages`."""
    family = name.partition("/" if "/" in name else "-")[0]
    return f"{family} across languages" if ":" in name else family


def _routing_rows(loads: Loads, layers: Sequence[int]) -> Iterator[str]:
    total = np.asarray(sum(loads.values()))
    for row, layer in enumerate(layers):
        shares = total[row] / total[row].sum()
        within = [entropy(load[row]) for load in loads.values()]
        yield (
            f"| {layer} | {', '.join(f'{share:.0%}' for share in shares)} | {entropy(total[row]):.2f} of "
            f"{math.log2(len(shares)):.0f} | {fmean(within):.2f} | {_top_languages(loads, row)} |"
        )


def _top_languages(loads: Loads, row: int) -> str:
    """Return for each expert the language whose share is highest relative to the mean over languages."""
    languages = list(loads)
    shares = np.array([load[row] / load[row].sum() for load in loads.values()])
    highest = (shares / shares.mean(0).clip(1e-9)).argmax(0)
    return ", ".join(languages[i] for i in highest)


def draw(path: Path, loads: Loads, layers: Sequence[int]) -> None:
    """Write a PNG with a panel per layer with experts: the share of every language's tokens routed to each expert.

    Raises:
        OutputError: the file cannot be written; an existing file is left unchanged.
        MissingExtraError: matplotlib is missing.
    """
    with extra("eval", "The plot of the model card"):
        from matplotlib.figure import Figure
    figure = Figure(figsize=(1.5 + 3.2 * len(layers), 1.5 + 0.17 * len(loads)), layout="constrained")
    for row, (panel, layer) in enumerate(zip(figure.subplots(1, len(layers), squeeze=False)[0], layers, strict=True)):
        shares = np.array([load[row] / load[row].sum() for load in loads.values()])
        image = panel.imshow(100 * shares, aspect="auto", cmap="viridis", vmin=0)
        panel.set(title=f"layer {layer}", xlabel="expert", xticks=range(shares.shape[1]))
        panel.set_yticks(range(len(loads)), list(loads), fontsize=7)
        figure.colorbar(image, ax=panel, label="% of the language's routing decisions")
    with replacing_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)


def write_card(folder: Path, checkpoint: Path, paths: Sequence[Path], card_dir: Path, *, texts: int) -> Path:
    """Write the card and its plot.

    Args:
        folder: the INT8 bundle.
        checkpoint: the checkpoint that it was made from.
        paths: see `expert_loads`.
        card_dir: folder for both files.
        texts: see `expert_loads`.

    Returns:
        The path of the card.

    Raises:
        InputError: the bundle has no quality, was made from another checkpoint, or a text cannot be used.
        OutputError: a file cannot be written.
        BundleError: the bundle cannot be used.
        MissingExtraError: matplotlib is missing.
    """
    bundle = Bundle.open(folder)
    if not bundle.manifest.certificate.quality:
        raise InputError(f"{folder} has no quality in its certificate: measure it with `moembed evaluate --certify`")
    report = read_report(checkpoint)
    if report.sha256 != bundle.manifest.source.weights_sha256:
        raise InputError(f"{folder} was not made from {checkpoint}: the sha256 of the weights differ")
    embedder = Embedder.from_pretrained(folder)
    layers = embedder.routing("a text", prompt="").layers
    loads = expert_loads(embedder, paths, texts)
    try:
        card_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {card_dir}: {error.strerror}") from error
    draw(card_dir / PLOT_FILE, loads, layers)
    with replacing_file(card_dir / CARD_FILE) as partial:
        partial.write_text(render(bundle, report, loads, layers), "utf-8")
    return card_dir / CARD_FILE
