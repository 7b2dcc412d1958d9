"""Where a call's time goes: milliseconds of each kind of operator, beside the least that the machine could take for it.

    python tests/benchmarks/operators.py INT8_BUNDLE 8x128 [1x16 ...] [--threads 2]

Prints Markdown. Times are ONNX Runtime's own profile, means of several calls; limits are those of `limits.cpp` for the unit that
the bundle's kernels use, in a product of matrices. What has no limit in the table moves a few bytes and would ideally take no
time of its own. Experts in use are those that the graph chooses for these ids.

Below each table stand all products of the shape (linear layers, feed-forward networks, experts and the projection that attention
begins with) against that limit. `Int8Attention` is timed as a whole, so the share of all products is a lower bound: it counts
attention's scores and softmax as time of products. The share of the products outside `Int8Attention` stands beside it.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from limits import STATES, best_state, experts_in_use, halves_of, least_ms, limits_of, measured, unit_of, weights_of

from moembed.bundle.bundle import Bundle
from moembed.inference.kernels import choose_kernels
from moembed.inference.session import import_onnxruntime, session_options

CALLS = 8
_FEW = 0.005  # of all time: rarer kinds are one line
_GATED = ("Int8GeluMulFeedForward", "Int8SiluMulFeedForward")
_PRODUCTS = ("Int8Linear", "Int8LinearGelu", "Int8FeedForward", *_GATED, "Int8Experts", "Int8Attention")
Event = dict[str, Any]


def events(bundle: Bundle, ids: np.ndarray, threads: int) -> list[Event]:
    """Profiled operators of `CALLS` calls after two that do not count; `Int8Experts` with the `experts` in use."""
    options = session_options(threads=threads)
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = import_onnxruntime().InferenceSession(str(bundle.graph), options, providers=["CPUExecutionProvider"])
        for _ in range(CALLS + 2):
            session.run(["sentence_embedding"], feed)
        found = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    nodes = [event for event in found if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    nodes = nodes[2 * len(nodes) // (CALLS + 2) :]
    return with_experts(nodes, experts_in_use(bundle, ids.tolist()))


def kind_of(event: Event) -> str:
    """The operator without the norm that it may end with: a norm adds no products."""
    return str(event["args"]["op_name"]).removesuffix("Norm")


def with_experts(nodes: list[Event], used: Sequence[int]) -> list[Event]:
    """Give each `Int8Experts` the number of experts in use of its layer, in the order of the layers."""
    layers = [event for event in nodes if kind_of(event) == "Int8Experts"]
    for number, event in enumerate(layers):
        event["experts"] = used[number % len(used)]
    return nodes


def work_of(event: Event) -> dict[str, float]:
    """What an operator has to do, as `limits.work` gives it for a whole call."""
    inputs = [next(iter(one.values())) for one in event["args"]["input_type_shape"]]
    done = {"bytes": 0.0, "int8": 0.0, "float32": 0.0, "attention16": 0.0}
    match kind_of(event):
        case "Int8Linear" | "Int8LinearGelu":
            done["bytes"] = float(np.prod(inputs[2]))
            done["int8"] = 2 * inputs[0][0] * done["bytes"]
        case "Int8FeedForward":
            done["bytes"] = float(np.prod(inputs[2]) + np.prod(inputs[5]))
            done["int8"] = 2 * inputs[0][0] * done["bytes"]
        case "Int8GeluMulFeedForward" | "Int8SiluMulFeedForward":
            done["bytes"] = float(sum(np.prod(inputs[index]) for index in (2, 5, 8)))
            done["int8"] = 2 * inputs[0][0] * done["bytes"]
        case "Int8Experts":
            (tokens, _), top_k = inputs[0], inputs[2][1]
            weights = 2.0 * np.prod(inputs[-1])  # the matrices of experts come last
            done["bytes"] = weights * event["experts"]
            done["int8"] = 2 * tokens * top_k * weights
        case "Int8Attention":
            (tokens, _), (columns,), (_, length) = inputs[0], inputs[3], inputs[6]
            done["bytes"] = float(np.prod(inputs[2]))
            done["int8"] = 2 * tokens * done["bytes"]
            done["attention16"] = 4 * tokens * length * columns / 3
        case "Attention":
            (tokens, width), (_, length) = inputs[0], inputs[2]
            done["float32"] = 4 * tokens * length * width / 3
    return done


def table(found: list[Event], best: dict[str, float], halves: int) -> str:
    """Markdown, the costliest first."""
    spent: dict[str, float] = defaultdict(float)
    least: dict[str, float] = defaultdict(float)
    for event in found:
        name = event["args"]["op_name"]
        spent[name] += event["dur"] / 1e3 / CALLS
        least[name] += least_ms([work_of(event)], best, halves=halves) / CALLS
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


def products(found: list[Event], names: Sequence[str], best: dict[str, float]) -> tuple[float, float, float]:
    """Of the products of a call in operators of some kinds: 10^9 operations, milliseconds, and their share of the limit."""
    events_of = [event for event in found if kind_of(event) in names]
    operations = sum(work_of(event)["int8"] for event in events_of) / CALLS
    spent = sum(event["dur"] for event in events_of) / 1e3 / CALLS
    return operations / 1e9, spent, operations / best["product_tops"] / 1e9 / spent if spent else 0.0


def summary(shape: str, found: list[Event], best: dict[str, float], unit: str) -> str:
    """One line about the products of a shape."""
    done, spent, share = products(found, _PRODUCTS, best)
    _, _, outside = products(found, _PRODUCTS[:-1], best)
    return (
        f"Products of {shape}: {done:.1f} GOP in {spent:.2f} ms with all of Int8Attention: at least {share:.1%} of a product of "
        f"matrices by {unit} ({best['product_tops']:.2f} TOPS); {outside:.1%} outside Int8Attention."
    )


def main() -> None:
    """Profile and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("shapes", nargs="+", metavar="BATCHxTOKENS")
    arguments.add_argument("--threads", type=int, default=2)
    chosen = arguments.parse_args()
    bundle, kernels = Bundle.open(chosen.bundle), choose_kernels().name
    machine = measured(chosen.threads, weights_of(bundle))
    unit, best = unit_of(machine, kernels), limits_of(machine, kernels)
    halves = halves_of(unit)
    state, _ = best_state(machine["units"][unit])
    print(
        f"{chosen.threads} threads, kernels {kernels}; limits of the unit {unit}, cores {state}: "
        f"{', '.join(f'{key} {value:.3g}' for key, value in best.items())}."
    )
    for state, one in machine["units"][unit].items():
        if state in STATES:
            print(
                f"{unit}, {state}: {one['registers']} TOPS out of registers, {one['rate']} in a product ({one['samples']})."
            )
    for shape in chosen.shapes:
        batch, length = map(int, shape.split("x"))
        ids = np.random.default_rng(0).integers(5, 40_000, (batch, length))
        found = events(bundle, ids, chosen.threads)
        print(f"\n{shape}\n\n{table(found, best, halves)}")
        print(summary(shape, found, best, unit))


if __name__ == "__main__":
    main()
