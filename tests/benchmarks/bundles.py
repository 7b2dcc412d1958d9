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

import onnxruntime
from common import SHAPES, calls, interleaved, row

from moembed.bundle import Bundle
from moembed.machine import this_machine
from moembed.session import Session

_SCRIPT = """
import sys
from pathlib import Path
from moembed.bundle import Bundle
from moembed.machine import this_machine
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
    sessions = {f"{i}": Session(bundle, threads=chosen.threads) for i, bundle in enumerate(bundles)}
    print(
        f"{this_machine().cpu}, {chosen.threads} threads, onnxruntime {onnxruntime.__version__}, "
        f"{chosen.rounds} interleaved rounds, median (min-max) ms\n"
    )
    print(f"| batch x tokens | {names[0]} | {names[1]} | ratio of medians |\n|---|---|---|---|")
    for shape in SHAPES:
        print(row(shape, interleaved(calls(sessions, shape), chosen.rounds)), flush=True)
    if sys.platform == "linux":
        command = [sys.executable, "-c", _SCRIPT, str(chosen.first)]
        held, private = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        print(f"\n{names[0]} after loading: {held} MB resident, {private} MB of it private")


if __name__ == "__main__":
    main()
