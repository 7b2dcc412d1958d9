"""The built-in model's table: INT8 against the fp32 bundle it was made from.

    moembed export CHECKPOINT -o fp32
    python tests/benchmarks/table.py fp32
    python tests/benchmarks/table.py --keep-times

Measures size and speed in interleaved rounds, reads the quality from the built-in bundle's certificate, writes `table.json`
beside this file, and rewrites the table in `docs/benchmarks.md`. `test_table.py` fails when the page and `table.json` disagree,
or when they describe another bundle than the built-in one. `--keep-times` reads only the quality again, after new weights in the
same graph: times do not depend on the values of weights.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blocks import PAGE, Block
from common import SHAPES, calls, interleaved

from moembed.bundle.bundle import Bundle
from moembed.inference.session import Session
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.verify.machine import this_machine

RESULT = Path(__file__).with_name("table.json")
BLOCK = Block(PAGE, "table", "python tests/benchmarks/table.py FP32_BUNDLE")


def measure(bundle: Bundle, reference: Bundle, *, threads: int, rounds: int) -> dict[str, Any]:
    """What `table.json` holds; milliseconds are medians of one call, sizes are bytes."""
    sessions = {name: Session(b, threads=threads) for name, b in (("bundle", bundle), ("reference", reference))}
    times = {}
    for batch, length in SHAPES:
        measured = interleaved(calls(sessions, (batch, length)), rounds)
        times[f"{batch}x{length}"] = {name: round(statistics.median(one), 3) for name, one in measured.items()}
    machine = this_machine()
    return {
        "bundle": identity(bundle),
        "reference": {"recipe": reference.manifest.recipe, "size": reference.size},
        "machine": {"cpu": machine.cpu, "onnxruntime": machine.onnxruntime, "threads": threads, "rounds": rounds},
        "milliseconds": times,
    }


def identity(bundle: Bundle) -> dict[str, Any]:
    """What the table says of the bundle itself: if this changes, it has to be made again."""
    certificate = bundle.manifest.certificate
    return {
        "recipe": bundle.manifest.recipe,
        "fingerprint": bundle.fingerprint,
        "size": bundle.size,
        "embedding_mean_cosine": certificate.embedding_mean_cosine,
        "neighbour_overlap": certificate.neighbour_overlap,
        "quality": {name: asdict(quality) for name, quality in certificate.quality.items()},
    }


def render(table: dict[str, Any]) -> str:
    """The table as Markdown."""
    machine = table["machine"]
    rows = [*_measured(table), *_certified(table["bundle"])]
    return "\n".join(
        [
            f"{machine['cpu']}, {machine['threads']} threads, onnxruntime {machine['onnxruntime']}, medians of "
            f"{machine['rounds']} interleaved rounds.",
            "",
            f"| built-in model | {table['bundle']['recipe']} | {table['reference']['recipe']} | |",
            "|---|---|---|---|",
            *("| " + " | ".join(row) + " |" for row in rows),
            "",
        ]
    )


def _measured(table: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    sizes = [table[name]["size"] / 1e6 for name in ("bundle", "reference")]
    yield "size, MB", *(f"{size:.1f}" for size in sizes), f"{sizes[1] / sizes[0]:.1f} times smaller"
    for shape, times in table["milliseconds"].items():
        batch, length = map(int, shape.split("x"))
        own, other = times["bundle"], times["reference"]
        faster = f"{other / own:.1f} times as fast"
        if batch == 1:
            yield f"one text of {length} tokens, ms", f"{own:.1f}", f"{other:.1f}", faster
        else:
            speeds = [f"{1000 * batch * length / one:,.0f}" for one in (own, other)]
            yield f"{batch} texts of {length} tokens, tokens/s", *speeds, faster


def _certified(bundle: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    yield "mean cosine to fp32", f"{bundle['embedding_mean_cosine']:.4f}", "1", ""
    yield "of a text's 10 nearest, the same", f"{bundle['neighbour_overlap']:.1%}", "100%", ""
    sets = bundle["quality"].values()
    for figure in dict.fromkeys(one["figure"] for one in sets):
        own, other = ([one[side] for one in sets if one["figure"] == figure] for side in ("value", "baseline"))
        changes = [100 * (x - y) for x, y in zip(own, other, strict=True)]
        yield (
            f"{figure} x 100, mean of {len(own)} sets",
            *(f"{100 * statistics.fmean(values):.2f}" for values in (own, other)),
            f"{min(changes):+.2f} to {max(changes):+.2f} points",
        )


def main() -> None:
    """Measure, write, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("fp32", type=Path, nargs="?", help="the bundle that the built-in one was quantized from")
    arguments.add_argument("--keep-times", action="store_true", help="read the quality only")
    arguments.add_argument("--bundle", type=Path, default=DEFAULT_FOLDER, help="another than the built-in one")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=25)
    arguments.add_argument("--dry-run", action="store_true", help="print only; write neither table.json nor the page")
    chosen = arguments.parse_args()
    if (chosen.fp32 is None) != chosen.keep_times:
        arguments.error("give either the fp32 bundle, or --keep-times")
    bundle = Bundle.open(chosen.bundle)
    table = kept(bundle) if chosen.keep_times else compared(bundle, chosen)
    text = render(table)
    print(text, end="")
    if chosen.dry_run:
        return
    RESULT.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    BLOCK.write(text)


def kept(bundle: Bundle) -> dict[str, Any]:
    """`table.json` with the quality of a bundle that has the recipe of the measured one."""
    table = json.loads(RESULT.read_text("utf-8"))
    known, found = table["bundle"]["recipe"], bundle.manifest.recipe
    if known != found:
        sys.exit(f"the measured bundle has the recipe {known}, this one {found}: measure again")
    return table | {"bundle": identity(bundle)}


def compared(bundle: Bundle, chosen: argparse.Namespace) -> dict[str, Any]:
    """`table.json` of a measurement beside the fp32 bundle."""
    reference = Bundle.open(chosen.fp32)
    certified = bundle.manifest.certificate.reference
    if certified.kind == "bundle" and certified.sha256 != reference.fingerprint:
        sys.exit(
            f"{chosen.fp32} is not the bundle that the certificate of {chosen.bundle} compares with; give that one"
        )
    return measure(bundle, reference, threads=chosen.threads, rounds=chosen.rounds)


if __name__ == "__main__":
    main()
