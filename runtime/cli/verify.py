"""`moembed verify`."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from moembed.cli.common import Subparsers, emit, emit_json, say
from moembed.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from moembed.bundle import Bundle


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="prove that a bundle is intact, byte-stable, and equal to its checkpoint",
        description="Hash every file, then embed the same texts alone, shuffled, padded, in batches, on one and on all threads, "
        "and compare the bytes. With --against also compare every layer with the checkpoint's torch network and with an "
        "independent numpy implementation (needs the extra 'export').",
    )
    parser.add_argument("bundle", nargs="?", help="bundle folder or hub name (default: the embedded model)")
    parser.add_argument("--against", metavar="CHECKPOINT", help="checkpoint folder or hub name to compare with")
    parser.add_argument("--texts", type=int, default=12, metavar="N", help="texts for --against, 1 to 40 (default: 12)")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Check the bundle; exit code 0 if everything holds, 1 if not."""
    from moembed.sources import open_bundle
    from moembed.stability import check_stability

    if not 1 <= arguments.texts <= 40:
        raise InputError(f"--texts {arguments.texts}: expected 1 to 40")
    bundle = open_bundle(arguments.bundle, local_files_only=arguments.offline, rehash=True)
    say(f"{bundle.folder}: {len(bundle.manifest.files)} files intact")
    stability = check_stability(bundle)
    report: dict[str, Any] = {
        "bundle": str(bundle.folder),
        "recipe": bundle.manifest.recipe,
        "stability": asdict(stability) | {"passed": stability.passed},
        "parity": _parity(bundle, arguments) if arguments.against else [],
    }
    report["passed"] = stability.passed and all(parity["passed"] for parity in report["parity"])
    if arguments.json:
        emit_json(report)
    else:
        _print(report)
    return 0 if report["passed"] else 1


def _parity(bundle: "Bundle", arguments: argparse.Namespace) -> list[dict[str, Any]]:
    try:
        from moembed.export.parity import compare, observe_graph, observe_network, observe_oracle
        from moembed.export.tolerances import TOLERANCES
        from moembed.models.checkpoint import load_network
        from moembed.models.oracle import Oracle
        from moembed.models.sources import locate
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "export", "verify --against") from error
    from moembed.probes import probe_texts
    from moembed.tokenizer import Tokenizer

    checkpoint = locate(arguments.against, local_files_only=arguments.offline)
    mismatch = []
    if checkpoint.weights_sha256 != bundle.manifest.source.weights_sha256:
        mismatch = [
            f"the bundle was made from weights {bundle.manifest.source.weights_sha256[:16]}…, "
            f"{arguments.against} has {checkpoint.weights_sha256[:16]}…"
        ]
    tokenizer = Tokenizer(bundle)
    texts = [ids.tolist()[: bundle.manifest.max_tokens] for ids in tokenizer.encode(probe_texts()[-arguments.texts :])]
    tolerance = TOLERANCES[bundle.manifest.recipe]
    found = observe_graph(bundle.graph)
    reports = [compare("torch", observe_network(load_network(checkpoint.folder)), found, texts, tolerance)]
    oracle = Oracle(checkpoint.folder)
    try:
        reports.append(compare("numpy", observe_oracle(oracle), found, texts, tolerance))
    finally:
        oracle.close()
    for report in reports:
        report.problems.extend(mismatch)
    return [report.to_dict() for report in reports]


def _print(report: dict[str, Any]) -> None:
    stability = report["stability"]
    emit(
        f"byte-stable: {_verdict(stability['passed'])}: {stability['differing']} of {stability['comparisons']} vectors differ "
        f"(max-abs {stability['max_abs']:.3g}; {stability['texts']} texts, threads {list(stability['threads'])})"
    )
    for parity in report["parity"]:
        emit(
            f"against {parity['reference']}: {_verdict(parity['passed'])}: {parity['texts']} texts, {parity['tokens']} tokens\n"
            f"  hidden states   max-abs {parity['hidden_max_abs']:.3g}, min cosine {parity['hidden_min_cosine']:.9f}\n"
            f"  embeddings      max-abs {parity['embedding_max_abs']:.3g}, min cosine {parity['embedding_min_cosine']:.9f}"
        )
        for layer, routing in parity["routing"].items():
            emit(
                f"  router {layer:>2}       max-abs {routing['max_abs']:.3g}, same experts for {routing['same_experts']} of "
                f"{routing['tokens']} tokens ({routing['near_ties']} of the others near a tie)"
            )
        for problem in parity["problems"]:
            emit(f"  {problem}")
    emit(_verdict(report["passed"]))


def _verdict(passed: bool) -> str:
    return "pass" if passed else "FAIL"
