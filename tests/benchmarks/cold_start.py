"""Cold start in fresh processes: from nothing to the first vector, and the memory it took.

    python tests/benchmarks/cold_start.py [BUNDLE]

Prints a Markdown table of medians; files are in the page cache, as on the second start after a boot.
"""

import argparse
import json
import statistics
import subprocess
import sys

_SCRIPT = """
import json, resource, sys, time
start = time.perf_counter()
from moembed import Embedder
imported = time.perf_counter()
model = Embedder.from_pretrained(*sys.argv[1:])
loaded = time.perf_counter()
model.encode("hello", prompt="")
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([imported - start, loaded - imported, done - loaded, done - start, peak]))
"""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", nargs="*")
    arguments.add_argument("--runs", type=int, default=7)
    chosen = arguments.parse_args()
    rows = []
    for _ in range(chosen.runs + 1):
        command = [sys.executable, "-c", _SCRIPT, *chosen.bundle]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    medians = [statistics.median(column) for column in zip(*rows[1:], strict=True)]
    print("| import s | load s | first vector s | in all s | peak MB |\n|---|---|---|---|---|")
    print("| " + " | ".join(f"{value:.2f}" for value in medians[:4]) + f" | {medians[4]:.0f} |")


if __name__ == "__main__":
    main()
