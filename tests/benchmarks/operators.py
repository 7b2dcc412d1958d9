"""Where a call's time goes: milliseconds of each kind of operator, beside the least that the machine could take for it.

    python tests/benchmarks/operators.py INT8_BUNDLE 8x128 [1x16 ...] [--threads 2]

Prints Markdown. Times are ONNX Runtime's own profile, means of several calls; limits are those of `limits.cpp`. What has no
limit in the table moves a few bytes and would ideally take no time of its own.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from limits import least_ms, limits

from moembed.bundle.bundle import Bundle
from moembed.inference.session import import_onnxruntime, session_options

CALLS = 8
_FEW = 0.005  # of all time: rarer kinds are one line


def events(bundle: Bundle, shape: tuple[int, int], threads: int) -> list[dict[str, Any]]:
    """Profiled operators of `CALLS` calls after one that does not count."""
    options = session_options()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    ids = np.random.default_rng(0).integers(5, 40_000, shape)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = import_onnxruntime().InferenceSession(str(bundle.graph), options, providers=["CPUExecutionProvider"])
        for _ in range(CALLS + 1):
            session.run(["sentence_embedding"], feed)
        found = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    nodes = [event for event in found if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    return nodes[len(nodes) // (CALLS + 1) :]


def work_of(event: dict[str, Any]) -> dict[str, float]:
    """What an operator has to do, as `limits.work` gives it for a whole call."""
    inputs = [next(iter(one.values())) for one in event["args"]["input_type_shape"]]
    done = {"bytes": 0.0, "int8": 0.0, "float32": 0.0}
    match event["args"]["op_name"]:
        case "Int8Linear" | "Int8LinearGelu":
            done["bytes"] = float(np.prod(inputs[2]))
            done["int8"] = 2 * inputs[0][0] * done["bytes"]
        case "Int8Experts":
            (tokens, _), (experts, _), top_k = inputs[0], inputs[5], inputs[2][1]
            weights = 2.0 * np.prod(inputs[7])
            done["bytes"] = weights * experts * (1 - (1 - top_k / experts) ** tokens)
            done["int8"] = 2 * tokens * top_k * weights
        case "Attention":
            (tokens, width), (_, length) = inputs[0], inputs[2]
            done["float32"] = 4 * tokens * length * width / 3
    return done


def table(found: list[dict[str, Any]], best: dict[str, float]) -> str:
    """Markdown, the costliest first."""
    spent: dict[str, float] = defaultdict(float)
    least: dict[str, float] = defaultdict(float)
    for event in found:
        name = event["args"]["op_name"]
        spent[name] += event["dur"] / 1e3 / CALLS
        least[name] += least_ms([work_of(event)], best) / CALLS
    total = sum(spent.values())
    rows = sorted(spent, key=lambda name: -spent[name])
    few = [name for name in rows if spent[name] < _FEW * total]
    lines = ["| operator | ms | share | limit ms | of the limit |", "|---|---|---|---|---|"]
    lines += [_row(name, spent[name], total, least[name]) for name in rows if name not in few]
    lines.append(_row(f"{len(few)} other kinds", sum(spent[name] for name in few), total, 0))
    lines.append(_row("all", total, total, sum(least.values())))
    return "\n".join(lines) + "\n"


def _row(name: str, ms: float, total: float, limit: float) -> str:
    ends = f"{limit:.2f} | {limit / ms:.0%}" if limit else " | "
    return f"| {name} | {ms:.2f} | {ms / total:.1%} | {ends} |"


def main() -> None:
    """Profile and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("shapes", nargs="+", metavar="BATCHxTOKENS")
    arguments.add_argument("--threads", type=int, default=2)
    chosen = arguments.parse_args()
    best = limits(chosen.threads)
    print(f"{chosen.threads} threads; at best {', '.join(f'{key} {value:.3g}' for key, value in best.items())}.")
    for shape in chosen.shapes:
        batch, length = map(int, shape.split("x"))
        print(
            f"\n{shape}\n\n{table(events(Bundle.open(chosen.bundle), (batch, length), chosen.threads), best)}", end=""
        )


if __name__ == "__main__":
    main()
