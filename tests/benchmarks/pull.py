"""Cost of a model's first use by name, in an environment with `moembed[convert]` alone: time, memory and disk.

    python tests/benchmarks/pull.py CHECKPOINT

Serves the folder on a local hub, installs this tree into a new environment, and runs `moembed embed -m NAME` twice there.
`PYTHONPATH=tests python -m support.checkpoints FOLDER --full` makes a checkpoint of random weights. Prints a Markdown table.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.folders import ROOT
from support.hub_server import Hub

NAME = "acme/full-size"
COMMAND = ("-m", "moembed", "embed", "-m", NAME, "--task", "query", "hello", "-f", "npy")


class Peak(threading.Thread):
    """Largest private memory and largest mapped files of a process, in MB."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._status = Path(f"/proc/{pid}/status")
        self.private = self.mapped = 0

    def run(self) -> None:
        while True:
            try:
                lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
                self.private = max(self.private, int(lines["RssAnon"].split()[0]) // 1000)
                self.mapped = max(self.mapped, int(lines["RssFile"].split()[0]) // 1000)
            except (OSError, KeyError):
                return
            time.sleep(0.05)


def install(folder: Path) -> Path:
    """Return the Python of a new environment with moembed and its extra `convert`."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"{ROOT}[convert]"], check=True)
    return python


def used(folder: Path) -> int:
    """Return the MB that the files of a folder take, each once."""
    files = {path.stat().st_ino: path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()}
    return sum(files.values()) // 10**6


def measured(python: Path, variables: dict[str, str]) -> tuple[float, Peak]:
    """Run the command; return its seconds and the peak of its memory."""
    start = time.monotonic()
    process = subprocess.Popen([python, *COMMAND], env=os.environ | variables, stdout=subprocess.PIPE)
    peak = Peak(process.pid)
    peak.start()
    vector = process.communicate()[0]
    if process.returncode or not vector:
        raise SystemExit(f"exit code {process.returncode}")
    return time.monotonic() - start, peak


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, Hub() as hub:
        root = Path(folder)
        hub.add(NAME, arguments.checkpoint)
        python = install(root / "environment")
        data, cache = root / "data", root / "hub"
        variables = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache), "MOEMBED_DATA": str(data)}
        variables["MOEMBED_CACHE"] = str(root / "cache")
        first, peak = measured(python, variables)
        requests = len(hub.requests)
        later = sorted(measured(python, variables)[0] for _ in range(5))[2]
        if len(hub.requests) != requests:
            raise SystemExit("a later call asked the hub")
        print("| | |\n|---|---|")
        print(f"| environment with `moembed[convert]` | {used(root / 'environment')} MB |")
        print(f"| first `moembed embed -m NAME`: download, conversion, check, vector | {first:.0f} s |")
        print(f"| private memory, at most | {peak.private} MB |")
        print(f"| mapped files in memory, at most | {peak.mapped} MB |")
        print(f"| left on disk | {used(data)} MB in the data folder, {used(cache)} MB in the hub's cache |")
        print(f"| a later call, median of 5 | {later:.2f} s |")


if __name__ == "__main__":
    main()
