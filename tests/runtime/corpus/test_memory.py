"""Memory of a run, which does not grow with rows, row groups and files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.corpora import write_jsonl


def test_memory_does_not_grow_with_row_groups(here):
    """Only the needed columns are read, by batches: 100 MB of another column in one row group cost nothing."""
    rows = 1000
    rng = np.random.default_rng(0)
    wide = pa.array([rng.bytes(100_000) for _ in range(rows)], pa.binary())
    pq.write_table(
        pa.table({"text": [f"text {n % 50}" for n in range(rows)], "wide": wide}),
        "wide.parquet",
        row_group_size=rows,
        compression="none",
    )
    pq.write_table(pa.table({"text": [f"text {n % 50}" for n in range(rows)]}), "narrow.parquet")
    narrow, wide = peaks_of("narrow.parquet", "wide.parquet")
    assert wide - narrow < 40


def peaks_of(*names):
    """Peak memory in MiB of a process after each of some inputs."""
    script = (
        "import resource, sys\nfrom moembed.cli import main\n"
        "for name in sys.argv[1:]:\n"
        "    assert main(['embed', '-q', '--dim', '8', '-i', name, '-o', f'{name}.out/']) == 0\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, *names], capture_output=True, check=True)
    return list(map(int, done.stdout.split()))


@pytest.mark.long
def test_memory_does_not_grow_with_rows(here):
    """Ten times the rows, in one row group, in JSONL, and in 1,000 files."""

    def table(rows):
        return pa.table({"text": [f"text {number % 50}" for number in range(rows)]})

    for name, rows in (("few", 100_000), ("many", 1_000_000)):
        pq.write_table(table(rows), f"{name}.parquet", row_group_size=rows)
        write_jsonl(here / f"{name}.jsonl", table(rows).to_pylist())
    Path("files").mkdir()
    for number in range(1000):
        pq.write_table(table(100), f"files/{number:03}.parquet")
    few, *others = peaks_of("few.parquet", "many.parquet", "many.jsonl", "files")
    assert max(others) - few < 60, others
