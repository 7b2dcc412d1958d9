"""`moembed evaluate`."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, add_model, emit, log, open_embedder
from moembed.cli.comparison import compare
from moembed.errors import InputError, OutputError, extra

if TYPE_CHECKING:
    from moembed.embedder import Embedder


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "evaluate",
        help="measure quality on datasets (needs the extra 'eval')",
        description="Measure retrieval (BEIR and MIRACL folders: nDCG@10, Recall@100, MRR@10), similarity (STS files: Spearman) "
        "and bitext mining (translated pairs: accuracy@1), and print a Markdown table. Each text is embedded once for all widths "
        "and precisions. A corpus may be larger than memory. --model A --model B compares models in one table, with their size, "
        "and their speed measured in turns.",
    )
    parser.add_argument(
        "datasets",
        nargs="+",
        metavar="DATASET",
        help="folder or file, by path or by name in --data; QUERIES:CORPUS runs the queries of one folder against the corpus of "
        "another with the same ids; or a group: beir, cqadupstack, miracl, miracl-16",
    )
    parser.add_argument(
        "--data", type=Path, metavar="ROOT", help="folder with the datasets (default: $MOEMBED_DATASETS)"
    )
    parser.add_argument("--dim", metavar="N,N", help="widths to compare (default: those the model was trained for)")
    parser.add_argument(
        "--precision",
        default="float32",
        metavar="P,P",
        help="precisions of the documents' vectors (queries stay float32): float32 (default), float16, int8, int8-per-vector, "
        "uint8, binary, ubinary; or hamming: binary vectors on both sides",
    )
    parser.add_argument("--baseline", metavar="BUNDLE", help="second model to compare with, such as the fp32 bundle")
    parser.add_argument(
        "--certify",
        action="store_true",
        help="add the figures of each set and those of the baseline to the certificate of --model, a bundle folder; the baseline "
        "must be the fp32 bundle named in that certificate",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all results as JSON; rewritten after each dataset"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.png", help="plot quality against width and precision, or of several models"
    )
    parser.add_argument(
        "--allow-absent",
        action="store_true",
        help="allow judged documents that are not in the corpus; they count as not found",
    )
    add_model(parser, several=True)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Evaluate the model."""
    _check_outputs(arguments.json, arguments.plot)
    with extra("eval", "moembed evaluate"):
        from moembed.evaluation import certify, datasets, report, results, variants
        from moembed.evaluation.tasks import check_all

        draw = _draw() if arguments.plot else None
    from moembed.files.destination import writing

    root = arguments.data or (
        Path(os.environ[datasets.ROOT_VARIABLE]) if os.environ.get(datasets.ROOT_VARIABLE) else None
    )
    found = datasets.find(arguments.datasets, root, allow_absent=arguments.allow_absent)
    # A set that is named twice, or by itself and by its group, is measured once.
    tasks = {task.name: task for dataset in found for task in dataset.tasks()}
    if arguments.model and len(arguments.model) > 1:
        return compare(arguments, found, tasks)
    arguments.model = arguments.model[0] if arguments.model else None
    model = open_embedder(arguments)
    baseline = _baseline(arguments)
    dims = _numbers(arguments.dim) if arguments.dim else list(model.bundle.manifest.dims or (model.dim,))
    chosen = variants.variants(dims, arguments.precision.split(","), min(m.dim for m in (model, baseline) if m))
    if arguments.certify:
        certify.check_certifiable(arguments.model, model, baseline, chosen, tasks.values())
    counts = check_all(tasks, log)
    done: dict[str, results.Result] = {}
    for name, task in tasks.items():
        done[name] = result = results.measure(task, counts[name], model, baseline, chosen)
        log(
            f"moembed: {name}: done in {result.seconds:.0f} s, {result.truncated} texts cut to {model.max_tokens} tokens"
        )
        if arguments.certify:
            certify.certify(model, result)
        if arguments.json:
            complete = len(done) == len(tasks)
            means = list(results.means(found, done)) if complete else []
            with writing(arguments.json) as file:
                text = report.document(model, baseline, list(done.values()), means, complete=complete)
                file.write(text.encode())
    emit(report.markdown(list(done.values()), list(results.means(found, done))))
    if draw:
        manifest = model.bundle.manifest
        draw(arguments.plot, f"{manifest.name} ({manifest.recipe})", list(done.values()))
    return 0


def _check_outputs(*paths: Path | None) -> None:
    for path in paths:
        if path == Path("-"):
            raise OutputError("stdout is reserved for the table: pass a file name to --json and --plot")
        if path is not None and not path.parent.is_dir():
            raise OutputError(
                f"cannot write {path}: no folder {path.parent}; choose a folder that exists and is writable"
            )


def _baseline(arguments: argparse.Namespace) -> "Embedder | None":
    from moembed.embedder import Embedder

    if not arguments.baseline:
        return None
    return Embedder.from_pretrained(
        arguments.baseline,
        providers=arguments.provider,
        threads=arguments.threads,
        local_files_only=arguments.offline,
    )


def _draw() -> Callable[..., None]:
    from moembed.evaluation.plot import draw

    return draw


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise InputError(f"--dim {text}: expected widths such as 768,256") from None
