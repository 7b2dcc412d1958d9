"""Certificates: written by export and quantize, measured again by `verify`, and extended by certified quality."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from moembed.bundle.bundle import Bundle, read_manifest
from moembed.bundle.certificate import Reference, Stability
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.cli import main
from moembed.export import writer
from moembed.export.pipeline import export
from moembed.models.locate import locate
from moembed.verify import stability
from moembed.verify.parity import neighbour_overlap
from support.certified import edit
from support.checkpoints import small_config, write_checkpoint
from support.evaluation_sets import write_beir


@pytest.fixture
def data(tmp_path):
    """A folder of two tiny sets."""
    write_beir(tmp_path / "data" / "tiny")
    (tmp_path / "data" / "s.csv").write_text("a cat,a cat,5\na dog,the dog,3\nrain,tea,0\n")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """An fp32 bundle of another checkpoint."""
    folder = tmp_path_factory.mktemp("other")
    return export(locate(write_checkpoint(folder / "checkpoint", small_config(), seed=99)), folder / "fp32")


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run a command in-process: exit code, stdout, stderr. Batch invariance has its own tests and gets the quick check."""
    monkeypatch.setattr(stability, "check_stability", partial(stability.check_stability, quick=True))

    def run(*argv):
        code = main([str(a) for a in argv])
        return code, *capsys.readouterr()

    return run


# --- certificates that export and quantize write


def test_neighbour_overlap_by_hand():
    angles = np.array([0.0, 0.1, 0.3, 2.0])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert neighbour_overlap(points, 7 * points, 1) == 1, "cosines do not see lengths"
    moved = points[[0, 1, 3, 2]]
    # The nearest by the one: 0 -> 1, 1 -> 0, 2 -> 1, 3 -> 2; by the other: 0 -> 1, 1 -> 0, 2 -> 3, 3 -> 1.
    assert neighbour_overlap(points, moved, 1) == 0.5
    assert neighbour_overlap(points, points[[0, 2, 1, 3]], 1) == 0
    assert neighbour_overlap(points, moved, 10) == 1, "all others are neighbours"
    assert neighbour_overlap(points[:1], points[:1]) == 1


def test_an_export_is_certified_against_its_checkpoint(bundle, checkpoint):
    certificate = bundle.manifest.certificate
    weights = checkpoint / "model.safetensors"
    source = bundle.manifest.source
    assert certificate.reference == Reference(
        kind="checkpoint", sha256=source.weights_sha256, size=weights.stat().st_size
    )
    assert certificate.texts == 40
    assert (certificate.neighbour_overlap, certificate.size, certificate.quality) == (1.0, bundle.size, {})
    stability = certificate.stability
    assert (stability.differing, stability.passed, stability.threads[0]) == (0, True, 1)
    assert stability.comparisons > 10 * stability.texts
    assert certificate.machine.cpu
    assert re.fullmatch(r"\d+\.\d+.*", certificate.machine.onnxruntime)


def test_a_quantized_bundle_is_certified_against_the_fp32_bundle(int8, bundle):
    certificate = int8.manifest.certificate
    assert certificate.reference == Reference(kind="bundle", sha256=bundle.fingerprint, size=bundle.size)
    assert 0.99 < certificate.embedding_min_cosine <= certificate.embedding_mean_cosine < 1
    assert certificate.embedding_max_abs > 0
    assert 0 < certificate.neighbour_overlap <= 1
    assert certificate.same_experts.keys() == {1, 3}
    assert all(0.5 < share <= 1 for share in certificate.same_experts.values())


def test_batch_variance_is_recorded_and_fails_verification(checkpoint, tmp_path, monkeypatch, cli):
    unstable = Stability(14, 308, 3, 1e-7, (1, 2))
    monkeypatch.setattr(writer, "check_stability", lambda *_args, **_options: unstable)
    messages = []
    bundle = export(locate(checkpoint), tmp_path / "fp32", log=messages.append)
    assert bundle.manifest.certificate.stability == unstable
    assert any("not batch-invariant" in line and "3 of 308" in line for line in messages)
    assert "NO: 3 of 308 vectors differ" in cli("info", bundle.folder)[1]
    code, out, _ = cli("verify", bundle.folder)
    assert code == 1
    assert "stability.differing: the certificate says 3, found 0" in out


# --- certificates that verify measures again


def test_a_bundle_alone(cli, copy):
    code, out, _ = cli("verify", copy)
    fields = 2 + 2 * len(read_manifest(copy).int8.scales)
    assert (code, f"certificate: pass: {fields} of {fields} fields" in out) == (0, True)
    edit(copy, size=1)
    code, out, _ = cli("verify", copy)
    assert code == 1
    assert "size: the certificate says 1, found " in out


def test_against_the_fp32_bundle(cli, copy, bundle):
    code, out, _ = cli("verify", copy, "--against", bundle.folder, "--json")
    report = json.loads(out)
    assert (code, report["passed"]) == (0, True)
    assert [parity["reference"] for parity in report["parity"]] == ["the fp32 bundle"]
    found = {finding["field"]: finding for finding in report["certificate"]}
    assert {"reference.sha256", "texts", "tokens", "neighbour_overlap", "same_experts.1", "same_experts.3"} <= set(
        found
    )
    certificate = read_manifest(copy).certificate
    assert found["embedding_mean_cosine"]["found"] == certificate.embedding_mean_cosine, "on the same machine: the same"


_TAMPERED = {
    "embedding_mean_cosine": lambda value: 1 - (1 - value) / 10,
    "embedding_min_cosine": lambda value: 1 - (1 - value) / 2,
    "embedding_max_abs": lambda value: value / 2,
    "hidden_max_abs": lambda value: value / 2,
    "neighbour_overlap": lambda value: value - 0.05,
    "same_experts.3": lambda value: value - 0.05,
    "texts": lambda value: value + 1,
    "tokens": lambda value: value - 1,
}


@pytest.mark.parametrize("against", ["bundle", "checkpoint"])
def test_a_tampered_certificate_fails(cli, copy, bundle, checkpoint, against):
    reference = {"bundle": bundle.folder, "checkpoint": checkpoint}[against]
    record = json.loads((copy / MANIFEST_FILE).read_text())["certificate"]
    for field, change in _TAMPERED.items():
        value = record["same_experts"]["3"] if field == "same_experts.3" else record[field]
        edit(copy, **{field.replace(".", "__"): change(value)})
    code, out, _ = cli("verify", copy, "--against", reference, "--texts", "1")
    assert code == 1
    named = re.findall(r"^  ([\w.]+): the certificate says .*, found ", out, re.MULTILINE)
    assert sorted(named) == sorted(_TAMPERED)
    assert "certificate: FAIL" in out


def test_a_certified_cosine_above_the_measured_one_fails(bundle, tmp_path):
    from moembed.verify.certificate_check import of_comparison
    from moembed.verify.parity import ParityReport

    stated = replace(bundle.manifest.certificate, embedding_mean_cosine=0.9999)
    report = ParityReport("any", embedding_mean_cosine=0.9990)
    findings = {finding.field: finding for finding in of_comparison(stated, report)}
    assert not findings["embedding_mean_cosine"].holds
    assert str(findings["embedding_mean_cosine"]).startswith(
        "embedding_mean_cosine: the certificate says 0.9999, found 0.999, allowed difference "
    )
    for broken in (float("nan"), float("inf")):
        report = ParityReport("any", embedding_max_abs=broken)
        assert not {f.field: f for f in of_comparison(stated, report)}["embedding_max_abs"].holds


def test_another_reference_fails(cli, copy, int8, other):
    code, out, _ = cli("verify", copy, "--against", other.folder)
    assert code == 1
    assert re.search(r"reference.sha256: the certificate says \w{16}…, found \w{16}…", out)
    code, _, err = cli("verify", copy, "--against", int8.folder)
    assert code == 2
    assert "has the recipe int8; expected an fp32 bundle" in err


def test_an_export_against_an_fp32_bundle_of_its_checkpoint(cli, bundle, checkpoint, tmp_path):
    again = export(locate(checkpoint), tmp_path / "again")
    assert cli("verify", again.folder, "--against", bundle.folder)[0] == 0
    edit(again.folder, reference__sha256="0" * 64)
    assert cli("verify", again.folder)[0] == 1, "the source is another"


# --- certified quality


def certified(cli, copy, bundle, data, *names):
    return cli("evaluate", *names, "--data", data, "--model", copy, "--baseline", bundle.folder, "--certify")


def test_certified_quality_is_merged_printed_and_measured_again(cli, copy, bundle, int8, data):
    code, _, err = certified(cli, copy, bundle, data, "tiny")
    assert code == 0, err
    assert read_manifest(copy).certificate.quality.keys() == {"tiny"}
    assert certified(cli, copy, bundle, data, "s")[0] == 0
    manifest = read_manifest(copy)
    assert replace(manifest.certificate, quality={}) == int8.manifest.certificate, "nothing else changes"
    assert manifest.files == int8.manifest.files
    quality = manifest.certificate.quality
    assert {name: one.figure for name, one in quality.items()} == {"tiny": "nDCG@10", "s": "Spearman"}
    assert sorted(path.name for path in copy.iterdir()) == sorted(path.name for path in int8.folder.iterdir())
    out = cli("info", copy)[1]
    assert re.search(rf"^  tiny +nDCG@10 +{100 * quality['tiny'].value:.2f} ", out, re.MULTILINE)
    again = ("verify", copy, "--against", bundle.folder, "--data", data)
    code, out, _ = cli(*again, "--json")
    found = {finding["field"]: finding for finding in json.loads(out)["certificate"]}
    assert code == 0
    assert found["quality.tiny.value"]["found"] == quality["tiny"].value
    assert {"quality.s.figure", "quality.s.value", "quality.s.baseline", "quality.s.difference"} <= set(found)
    edit(copy, quality__tiny__value=quality["tiny"].value - 0.01)
    code, out, _ = cli(*again)
    assert code == 1
    assert "quality.tiny.value: the certificate says" in out
    assert "quality.tiny.difference: the certificate says" in out
    assert cli(*again, "--sets", "s")[0] == 0, "the other set agrees with its certificate"


def test_the_fp32_bundle_itself_may_be_certified(cli, bundle, data, tmp_path):
    mine = shutil.copytree(bundle.folder, tmp_path / "mine")
    assert certified(cli, mine, bundle, data, "tiny")[0] == 0
    quality = read_manifest(mine).certificate.quality["tiny"]
    assert quality.value == quality.baseline


def test_invalid_certifications_are_refused(cli, copy, bundle, other, data):
    def refused(*argv):
        before = (copy / MANIFEST_FILE).read_text()
        code, out, err = cli("evaluate", "tiny", "--data", data, "--certify", *argv)
        assert (code, out, (copy / MANIFEST_FILE).read_text()) == (2, "", before)
        return err

    fp32 = ("--baseline", bundle.folder)
    assert "--certify needs --baseline" in refused("--model", copy)
    assert "not the fp32 reference of" in refused("--model", copy, "--baseline", copy)
    assert "whose certificate names bundle" in refused("--model", copy, "--baseline", other.folder)
    assert "writes into a bundle folder" in refused(*fp32, "--dim", "48")
    assert "48 dimensions in float32" in refused("--model", copy, *fp32, "--dim", "24")
    assert "48 dimensions in float32" in refused("--model", copy, *fp32, "--precision", "int8")
    code, _, err = cli("evaluate", data / "tiny", "--model", copy, *fp32, "--certify")
    assert code == 2
    assert "relative to --data" in err


def test_a_bundle_that_was_replaced_during_evaluation_is_not_changed(cli, copy, bundle, data, monkeypatch):
    from moembed.evaluation import results

    measure = results.measure

    def slow(*args, **options):
        (copy / MANIFEST_FILE).write_bytes((bundle.folder / MANIFEST_FILE).read_bytes())
        return measure(*args, **options)

    monkeypatch.setattr(results, "measure", slow)
    code, _, err = certified(cli, copy, bundle, data, "tiny")
    assert code == 2
    assert "was replaced during the evaluation" in err
    assert (copy / MANIFEST_FILE).read_bytes() == (bundle.folder / MANIFEST_FILE).read_bytes()


def test_invalid_combinations_of_options_are_refused(cli, copy, bundle, checkpoint, data):
    assert "name it with --against" in cli("verify", copy, "--data", data)[2]
    assert "name it with --against" in cli("verify", copy, "--data", data, "--against", checkpoint)[2]
    assert "needs --data" in cli("verify", copy, "--sets", "tiny")[2]
    against = ("--against", bundle.folder, "--data", data)
    assert "no certified set" in cli("verify", copy, *against)[2]
    edit(copy, quality={"tiny": {"figure": "nDCG@10", "value": 0.5, "baseline": 0.5}})
    assert "no set 'big'" in cli("verify", copy, *against, "--sets", "big")[2]


def test_info_prints_the_certificate(cli, copy, bundle):
    code, out, _ = cli("info", copy)
    assert code == 0
    certificate = read_manifest(copy).certificate
    lines = out.splitlines()
    for line in (
        f"mean {certificate.embedding_mean_cosine:.6f}, minimum {certificate.embedding_min_cosine:.6f}",
        f"layer 3 {100 * certificate.same_experts[3]:.2f} %",
        "yes: 0 of",
        certificate.machine.cpu,
        f"kernels {certificate.machine.kernels}",
        certificate.reference.sha256[:16],
        "not certified",
    ):
        assert any(line in shown for shown in lines), line
    assert "{" not in out
    assert Bundle.open(copy).manifest.recipe in out
