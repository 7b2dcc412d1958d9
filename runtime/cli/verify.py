"""`moembed verify`."""

import argparse
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, emit, emit_json, log, open_source
from moembed.errors import InputError, extra

if TYPE_CHECKING:
    from moembed.bundle.bundle import Bundle
    from moembed.models.spec import ModelSpec
    from moembed.verify.certificate_check import Finding
    from moembed.verify.examples import ExampleResult
    from moembed.verify.parity import ParityReport


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="check that a bundle is intact, batch-invariant, equal to its checkpoint, and as certified",
        description="Hash every file. Then embed the same texts alone, shuffled, padded and in batches, on one and all threads, "
        "and compare the bytes. With --against, also compare every layer with the source of the bundle: a checkpoint (by its "
        "torch network and an independent numpy implementation) or an fp32 bundle. All results must match the certificate. "
        "A bundle of a known model's weights must reproduce the numbers that others published for them. "
        "--against needs the extra 'export', and --data needs 'eval'.",
    )
    parser.add_argument("bundle", nargs="?", help="bundle folder or hub name (default: the built-in model)")
    parser.add_argument(
        "--against", metavar="REFERENCE", help="checkpoint or fp32 bundle to compare with: a folder or hub name"
    )
    parser.add_argument(
        "--texts",
        type=int,
        default=12,
        metavar="N",
        help="number of texts for the numpy implementation, 1 to 40 (default: 12)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="ROOT",
        help="folder with datasets: repeat the certified evaluation, with the fp32 bundle as the baseline",
    )
    parser.add_argument("--sets", metavar="NAME,NAME", help="certified sets to evaluate with --data (default: all)")
    parser.add_argument("--offline", action="store_true", help="do not use the network")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Check the bundle; exit code 0 if all checks pass, 1 if not."""
    from moembed.models.spec import known_model
    from moembed.verify import certificate_check
    from moembed.verify.int8_calibration import calibrate
    from moembed.verify.stability import check_stability

    if not 1 <= arguments.texts <= 40:
        raise InputError(f"--texts {arguments.texts}: expected 1 to 40")
    reference = _reference_bundle(arguments)
    bundle = open_source(arguments.bundle, arguments, rehash=True)
    sets = _certified_sets(bundle, arguments)
    log(f"{bundle.folder}: {len(bundle.manifest.files)} files intact")
    stability = check_stability(bundle)
    found = certificate_check.of_bundle(bundle, stability)
    if bundle.manifest.int8 is not None:
        found += certificate_check.of_int8(bundle.manifest.int8, calibrate(bundle))
    parity: list[ParityReport] = []
    if reference is not None:
        found.append(certificate_check.of_reference(bundle, reference))
        parity = [_against_bundle(bundle, reference)]
    elif arguments.against:
        parity = _against_checkpoint(bundle, arguments)
    if parity:
        found += certificate_check.of_comparison(bundle.manifest.certificate, parity[0])
    known = known_model(bundle.manifest.source)
    examples = _examples(bundle, known)
    found += certificate_check.of_examples(bundle.manifest.certificate, examples)
    if reference is not None and sets:
        found += _quality(bundle, reference, arguments.data, sets)
    report: dict[str, Any] = {
        "bundle": str(bundle.folder),
        "recipe": bundle.manifest.recipe,
        "stability": asdict(stability) | {"passed": stability.passed},
        "parity": [one.to_dict() for one in parity],
        "examples": [one.to_dict() for one in examples],
        "weights_pinned": known.pins_weights if known else None,
        "certificate": [finding.to_dict() for finding in found],
    }
    checks = [stability.passed, *(one.passed for one in parity), *(one.passed for one in examples)]
    passed = all(checks) and all(finding.holds for finding in found)
    report["passed"] = passed
    if arguments.json:
        emit_json(report)
    else:
        _print(report, examples, found)
    return 0 if passed else 1


def _reference_bundle(arguments: argparse.Namespace) -> "Bundle | None":
    """Open the fp32 bundle of --against; None without one, or if --against names a checkpoint."""
    from moembed.bundle.bundle import Bundle
    from moembed.bundle.manifest import MANIFEST_FILE, UNQUANTIZED
    from moembed.errors import SourceError
    from moembed.pull.opening import hub_bundle, model_of
    from moembed.pull.report import Reporter

    against, reference = arguments.against, None
    if against is not None and (Path(against) / MANIFEST_FILE).is_file():
        reference = Bundle.open(Path(against))
    elif against is not None and not Path(against).exists():
        with suppress(SourceError):  # not a bundle; it may be a checkpoint
            model = model_of(against, None)
            reference = (
                None if model is None else hub_bundle(model, None, Reporter(), local_files_only=arguments.offline)
            )
    if reference is None:
        if arguments.data is not None:
            raise InputError("--data compares with an fp32 bundle: name it with --against")
        return None
    if reference.manifest.recipe != UNQUANTIZED:
        raise InputError(f"--against {against} has the recipe {reference.manifest.recipe}; expected an fp32 bundle")
    return reference


def _certified_sets(bundle: "Bundle", arguments: argparse.Namespace) -> list[str]:
    certified = list(bundle.manifest.certificate.quality)
    if arguments.data is None:
        if arguments.sets:
            raise InputError("--sets needs --data with the folder of the sets")
        return []
    if not certified:
        raise InputError(
            f"{bundle.folder} has no certified set: add one with moembed evaluate SET --baseline FP32 --certify"
        )
    requested: list[str] = arguments.sets.split(",") if arguments.sets else certified
    if unknown := [name for name in requested if name not in certified]:
        raise InputError(f"no set {unknown[0]!r} in the certificate of {bundle.folder}; it has {', '.join(certified)}")
    return requested


def _against_bundle(bundle: "Bundle", reference: "Bundle") -> "ParityReport":
    with extra("export", "moembed verify --against"):
        from moembed.quantize.recipe import tolerance_of
        from moembed.verify.parity import compare, graph_runner
    expected, found = graph_runner(reference.graph), graph_runner(bundle.graph)
    return compare("the fp32 bundle", expected, found, _texts(bundle), tolerance_of(bundle.manifest.recipe))


def _against_checkpoint(bundle: "Bundle", arguments: argparse.Namespace) -> "list[ParityReport]":
    with extra("export", "moembed verify --against"):
        from moembed.models.checkpoint import load_network
        from moembed.models.locate import locate
        from moembed.models.oracle import Oracle
        from moembed.quantize.recipe import tolerance_of
        from moembed.verify.parity import compare, graph_runner, network_runner, oracle_runner
    checkpoint = locate(arguments.against, local_files_only=arguments.offline)
    mismatch = []
    if checkpoint.weights_sha256 != bundle.manifest.source.weights_sha256:
        mismatch = [
            f"the bundle was made from weights {bundle.manifest.source.weights_sha256[:16]}…, "
            f"{arguments.against} has {checkpoint.weights_sha256[:16]}…"
        ]
    texts, tolerance = _texts(bundle), tolerance_of(bundle.manifest.recipe)
    found = graph_runner(bundle.graph)
    reports = [compare("torch", network_runner(load_network(checkpoint.folder)), found, texts, tolerance)]
    oracle = Oracle(checkpoint.folder)
    try:
        reports.append(compare("numpy", oracle_runner(oracle), found, texts[-arguments.texts :], tolerance))
    finally:
        oracle.close()
    for report in reports:
        report.problems.extend(mismatch)
    return reports


def _examples(bundle: "Bundle", known: "ModelSpec | None") -> "list[ExampleResult]":
    """Run the published examples of a known model; those that the certificate excuses stay excused."""
    from moembed.quantize.recipe import tolerance_of
    from moembed.tokenizer.tokenizer import Tokenizer
    from moembed.verify.examples import run_examples
    from moembed.verify.outputs import bundle_runner

    manifest = bundle.manifest
    if known is None or not known.examples.all:
        return []
    return run_examples(
        known.examples,
        manifest.prompts,
        Tokenizer(bundle),
        bundle_runner(bundle),
        tolerance_of(manifest.recipe),
        excused=manifest.certificate.near_ties,
    )


def _texts(bundle: "Bundle") -> list[list[int]]:
    from moembed.tokenizer.tokenizer import Tokenizer
    from moembed.verify.probes import probe_ids

    return probe_ids(Tokenizer(bundle), bundle.manifest.max_tokens)


def _quality(bundle: "Bundle", reference: "Bundle", root: Path, sets: list[str]) -> "list[Finding]":
    with extra("eval", "moembed verify --data"):
        from moembed.evaluation.certify import evaluated_again
    from moembed.embedder import Embedder
    from moembed.verify.certificate_check import of_quality

    found = []
    for name, quality in evaluated_again(sets, root, Embedder(bundle), Embedder(reference)):
        log(f"{name}: {quality.figure} {quality.value:.4f}, fp32 {quality.baseline:.4f}")
        found += of_quality(name, bundle.manifest.certificate.quality[name], quality)
    return found


def _print(report: dict[str, Any], examples: "list[ExampleResult]", found: "list[Finding]") -> None:
    stability = report["stability"]
    emit(
        f"batch-invariant: {_verdict(stability['passed'])}: {stability['differing']} of {stability['comparisons']} vectors "
        f"differ (max-abs {stability['max_abs']:.3g}; {stability['texts']} texts, threads {list(stability['threads'])})"
    )
    for parity in report["parity"]:
        emit(
            f"against {parity['reference']}: {_verdict(parity['passed'])}: {parity['texts']} texts, {parity['tokens']} tokens\n"
            f"  hidden states   max-abs {parity['hidden_max_abs']:.3g}, min cosine {parity['hidden_min_cosine']:.9f}\n"
            f"  embeddings      max-abs {parity['embedding_max_abs']:.3g}, min cosine {parity['embedding_min_cosine']:.9f}, "
            f"mean {parity['embedding_mean_cosine']:.9f}\n"
            f"  neighbours      {100 * parity['neighbour_overlap']:.2f} % of the 10 nearest neighbours are the same"
        )
        for layer, routing in parity["routing"].items():
            emit(
                f"  router {layer:>2}       max-abs {routing['max_abs']:.3g}, same experts for {routing['same_experts']} of "
                f"{routing['tokens']} tokens ({routing['near_ties']} of the others near a tie)"
            )
        for problem in parity["problems"]:
            emit(f"  {problem}")
    if examples:
        judged = [result for result in examples if not result.example.unresolved]
        reproduced = sum(result.passed for result in judged)
        emit(f"published examples: {_verdict(reproduced == len(judged))}: {reproduced} of {len(judged)} reproduced")
        if not report["weights_pinned"]:
            emit(
                "  recognized by name and commit: the weights are not pinned, so an example can also fail because they are others"
            )
        for result in examples:
            emit(f"  {'' if result.passed else 'FAIL '}{result}")
    wrong = [finding for finding in found if not finding.holds]
    emit(f"certificate: {_verdict(not wrong)}: {len(found) - len(wrong)} of {len(found)} fields match")
    for finding in wrong:
        emit(f"  {finding}")
    emit(_verdict(report["passed"]))


def _verdict(passed: bool) -> str:
    return "pass" if passed else "FAIL"
