"""Cold start in fresh processes: from nothing to the first vector, and the memory it took.

    python tests/benchmarks/cold_start.py [BUNDLE ...]

Prints a Markdown table of medians, a line per bundle; files are in the page cache, as on the second start after a boot.
`cpu s` is what the process used of all processors from its very start, and steadier than the clock on a busy machine.
Private memory is what the process has for itself once the first vector is there (Linux): weights that are mapped are shared
with everyone who runs the same bundle.
"""

import argparse
import json
import statistics
import subprocess
import sys

_SCRIPT = """
import json, sys, time
start = time.perf_counter()
from moembed import Embedder, embedder
imported = time.perf_counter()
spent = {}
def timed(name):
    part = getattr(embedder, name)
    def made(*arguments, **options):
        start = time.perf_counter()
        result = part(*arguments, **options)
        spent[name] = time.perf_counter() - start
        return result
    setattr(embedder, name, made)
timed("Session")
timed("Tokenizer")
model = Embedder.from_pretrained(*sys.argv[1:])
loaded = time.perf_counter()
model.encode("hello", prompt="")
done = time.perf_counter()
import resource
usage = resource.getrusage(resource.RUSAGE_SELF)
private = float("nan")
if sys.platform == "linux":
    sizes = [line.split() for line in open("/proc/self/smaps_rollup").read().splitlines()[1:]]
    private = sum(int(size[1]) for size in sizes if size[0].startswith("Private_")) / 1024
rest = loaded - imported - sum(spent.values())
print(json.dumps([imported - start, spent["Tokenizer"], spent["Session"], rest, done - loaded, done - start,
                  usage.ru_utime + usage.ru_stime, private, usage.ru_maxrss / 1024]))
"""
_COLUMNS = ("import s", "tokenizer s", "session s", "rest of load s", "first vector s", "in all s", "cpu s")


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundles", nargs="*", metavar="BUNDLE", help="none for the built-in model")
    arguments.add_argument("--runs", type=int, default=7)
    chosen = arguments.parse_args()
    print(f"| bundle | {' | '.join(_COLUMNS)} | private MB | peak MB |\n|---{'|---' * (len(_COLUMNS) + 2)}|")
    for bundle in chosen.bundles or [None]:
        medians = _medians([bundle] if bundle else [], chosen.runs)
        cells = [f"{value:.3f}" for value in medians[: len(_COLUMNS)]] + [f"{value:.0f}" for value in medians[-2:]]
        print(f"| {bundle or 'built-in'} | {' | '.join(cells)} |")


def _medians(arguments: list[str], runs: int) -> list[float]:
    rows = []
    for _ in range(runs + 1):  # the first one fills the page cache
        command = [sys.executable, "-c", _SCRIPT, *arguments]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    return [statistics.median(column) for column in zip(*rows[1:], strict=True)]


if __name__ == "__main__":
    main()
