"""The benchmark against peers: it goes on where it stopped, names who is missing, refuses other networks, judges fairly."""

import json
import subprocess
import sys
from pathlib import Path

import compare
import published
import pytest
import report
from blocks import Block
from contestants import CONTESTANTS, LLAMA, NATIVE, PORTABLE

from support.checkpoints import small_config, write_checkpoint

BENCHMARKS = Path(report.__file__).parent
OPENVINO = next(one.name for one in CONTESTANTS if one.rival == "openvino")


@pytest.mark.long
def test_it_goes_on_where_it_stopped_and_names_who_is_missing(checkpoint, int8, tmp_path):
    command = [sys.executable, BENCHMARKS / "compare.py", checkpoint, int8.folder, "-o", tmp_path]
    command += ["--peers", "bundle", "--threads", "2", "--shapes", "1x3"]
    stopped = subprocess.run([*command, "--seconds", "0"], capture_output=True, text=True)
    assert (stopped.returncode, "goes on from here" in stopped.stderr) == (3, True), stopped.stderr
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "compare.json").read_text())
    assert {name: len(ms) for name, ms in values["times"]["2"]["1x3"].items()} == {NATIVE: 15, PORTABLE: 15}
    assert values["contestants"][NATIVE]["cosine"] > 0.99
    assert sum(values["tokens"]["corpus"]) > len(values["tokens"]["corpus"]) > 10
    assert (tmp_path / "compare.md").read_text() == done.stdout
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    for one in CONTESTANTS:
        if one.name not in (NATIVE, PORTABLE):
            reason = "no bundle given" if one.source == "fp32" else "not asked for"
            assert f"| {one.name} | {reason} |" in done.stdout


def test_another_network_is_refused(int8, tmp_path):
    other = write_checkpoint(tmp_path / "other", small_config(), seed=1)
    (tmp_path / "logs").mkdir()
    state = compare.State(tmp_path / "compare.json", 60)
    sources = {"checkpoint": other, "int8": int8.folder, "logs": tmp_path / "logs"}
    able = [one for one in CONTESTANTS if one.name == NATIVE]
    assert compare.verify(able, sources, state) == []
    assert state.at("contestants", NATIVE)["refused"].startswith("cosine ")


def _values(own: float, openvino: float) -> dict:
    return {
        "machine": {"cpu": "A processor", "instructions": ["X"], "kernels": "x"},
        "contestants": {name: {"version": "v 1", "cosine": 1.0} for name in (NATIVE, PORTABLE, OPENVINO, LLAMA)},
        "tokens": {"1x16": [16], "8x128": [128] * 8, "corpus": [5, 7]},
        "work": {
            "1x16": [{"bytes": 1e8, "int8": 1e9, "float32": 0.0}],
            "8x128": [{"bytes": 1e8, "int8": 1e11, "float32": 0.0}],
        },
        "limits": {"2": [{"int8_tops": 1.0, "float32_tflops": 0.1, "memory_gbs": 10.0}]},
        "times": {
            "2": {
                "1x16": {NATIVE: [own / 10], OPENVINO: [openvino / 10]},
                "8x128": {NATIVE: [own], PORTABLE: [4 * own], OPENVINO: [openvino], LLAMA: [7.9 * own]},
            }
        },
        "growing": {"8": [100.0], "16": [100.0], "32": [150.0]},
    }


@pytest.mark.parametrize(("openvino", "met"), [(600.0, "yes"), (599.0, "no")])
def test_bars(openvino, met):
    lines = report.bars(_values(200.0, openvino)).splitlines()[2:]
    judged = {line.split("|")[1].strip(): line.split("|")[2:4] for line in lines}
    assert [cell.strip() for cell in judged["3x OpenVINO's best, 8x128"]] == [
        f"{openvino / 200:.2f} (at the limit: {openvino / 100:.2f})",
        met,
    ]
    assert judged["2x OpenVINO's best, 1x16"][1].strip() == "yes"
    assert judged["8x llama.cpp Q8_0, 8x128"] == [" 7.90 ", " no "]
    assert judged["4x the portable path, 8x128"] == [" 4.00 ", " yes "]
    assert judged["40 % of the int8 limit (no AMX here: AVX512-VNNI), 8x128"] == [" 50% ", " yes "]
    assert judged["1x16 within 1.5 of reading its weights"] == [" 2.00 (10.0 ms) ", " no "]
    assert judged["time per token flat within 20 %, 1k to 16k a call"] == [" +-20% ", " yes "]


def test_the_pages_show_what_was_measured():
    found = published.measured()
    assert published.PEERS.shown() == published.page_block(found), "run compare.py --publish again"
    assert published.SHORT.shown() == published.short_block(found), "run compare.py --publish again"


def test_each_kind_of_machine_keeps_its_own(monkeypatch, tmp_path):
    """A second kind stands beside the first, the faster one first; one that was measured before is replaced."""
    for name in ("COMPARED", "PLOTS"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(published, name, tmp_path / name)
    for name in ("PEERS", "SHORT"):
        block = Block(tmp_path / f"{name}.md", name, "run")
        block.path.write_text(f"<!-- {name}: run -->\n<!-- end of {name} -->\n")
        monkeypatch.setattr(published, name, block)
    first = json.loads(next(BENCHMARKS.glob("compared/*.json")).read_text("utf-8"))
    second = json.loads(json.dumps(first))
    second["machine"] |= {"cpu": "Intel(R) Xeon(R) Processor @ 2.10GHz", "kernels": "amx"}
    second["times"]["2"]["8x128"][NATIVE] = [1.0]
    for values in (first, first, second):
        (tmp_path / "compare.json").write_text(json.dumps(values))
        (tmp_path / "compare.md").write_text("")
        (tmp_path / "compare.png").write_bytes(b"")
        published.publish(tmp_path)
    assert list(published.measured()) == ["amx-intel-xeon", "avx512vnni-amd-epyc"]
    page = published.PEERS.shown()
    assert page.index("kernels amx") < page.index("kernels avx512vnni")
    assert "Intel(R) Xeon(R)" in published.SHORT.shown()
    assert (tmp_path / "PLOTS" / "amx-intel-xeon.png").exists()
