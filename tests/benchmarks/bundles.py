"""One bundle against another, such as INT8 against the fp32 one it was made from: the same texts, interleaved.

    moembed quantize full-bundle -o full-int8
    python tests/benchmarks/bundles.py full-int8 full-bundle

Prints a Markdown table: medians of one call in milliseconds, a ratio above 1 means that the first bundle is faster; then
what a process holds after loading the first bundle alone.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from common import SHAPES, cpu_name, interleaved, row

from moembed.bundle import Bundle
from moembed.session import Session

_SCRIPT = """
import sys
from pathlib import Path
from moembed.bundle import Bundle
from moembed.session import Session
session = Session(Bundle.open(Path(sys.argv[1])))
lines = Path("/proc/self/status").read_text().splitlines()
print(*(int(line.split()[1]) // 1024 for name in ("VmRSS", "RssAnon") for line in lines if line.startswith(name)))
"""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("first", type=Path)
    arguments.add_argument("second", type=Path)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=15)
    chosen = arguments.parse_args()
    bundles = [Bundle.open(path) for path in (chosen.first, chosen.second)]
    names = [bundle.manifest.recipe for bundle in bundles]
    sessions = [Session(bundle, threads=chosen.threads) for bundle in bundles]
    print(
        f"{cpu_name()}, {chosen.threads} threads, onnxruntime {onnxruntime.__version__}, {chosen.rounds} interleaved rounds, "
        "median (min-max) ms\n"
    )
    print(f"| batch x tokens | {names[0]} | {names[1]} | ratio of medians |\n|---|---|---|---|")
    rng = np.random.default_rng(0)
    for batch, length in SHAPES:
        ids = rng.integers(5, 40_000, (batch, length))
        mask = np.ones_like(ids)
        runs = {
            f"{i}": lambda session=session, ids=ids, mask=mask: session.run("sentence_embedding", ids, mask)
            for i, session in enumerate(sessions)
        }
        print(row((batch, length), interleaved(runs, chosen.rounds)), flush=True)
    if sys.platform == "linux":
        command = [sys.executable, "-c", _SCRIPT, str(chosen.first)]
        held, private = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        print(f"\n{names[0]} after loading: {held} MB resident, {private} MB of it private")


if __name__ == "__main__":
    main()
