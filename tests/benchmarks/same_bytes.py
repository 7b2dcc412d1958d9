"""Fingerprint of a converted checkpoint under every set of kernels, numbers of CPUs and releases of NumPy.

    python tests/benchmarks/same_bytes.py CHECKPOINT [--numpy 1.26.4 2.4.6]

Prints a Markdown table; exit code 1 if the fingerprints differ. Portable operators are left out: they follow ONNX Runtime.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from moembed.inference.kernels import PORTABLE, usable_kernels

SCRIPT = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[3])])
from pathlib import Path
import numpy
from moembed.convert.conversion import convert
from moembed.models.locate import locate
print(numpy.__version__, convert(locate(sys.argv[1]), Path(sys.argv[2])).fingerprint)
"""


def main() -> int:
    """Convert, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--numpy", nargs="*", default=[], metavar="RELEASE", help="releases beside the installed one")
    arguments = parser.parse_args()
    kernels = [name for name in usable_kernels() if name != PORTABLE]
    cpus = sorted({1, len(os.sched_getaffinity(0))})
    found = set()
    print("| kernels | CPUs | NumPy | fingerprint |\n|---|---|---|---|")
    with TemporaryDirectory() as folder:
        paths = [""]
        for release in arguments.numpy:
            paths.append(f"{folder}/numpy-{release}")
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--no-deps",
                "--target",
                paths[-1],
                f"numpy=={release}",
            ]
            subprocess.run(pip, check=True)
        cases = [(name, count, "") for name in kernels for count in cpus] + [
            (kernels[0], cpus[-1], p) for p in paths[1:]
        ]
        for index, (name, count, path) in enumerate(cases):
            environment = os.environ | {"MOEMBED_KERNELS": name, "PYTHONPATH": path}
            command = [sys.executable, "-c", SCRIPT, str(arguments.checkpoint), f"{folder}/{index}", str(count)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            version, fingerprint = done.stdout.split()
            found.add(fingerprint)
            print(f"| `{name}` | {count} | {version} | `{fingerprint}` |", flush=True)
    return len(found) > 1


if __name__ == "__main__":
    sys.exit(main())
