"""`moembed export`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit, log


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="convert a checkpoint into a bundle (needs the extra 'export')",
        description="Trace a NomicBert-MoE checkpoint into an ONNX bundle. Known models are pinned to a revision and checked "
        "against its sha256. Remote code is never run. The graph is compared with the network before the bundle appears.",
    )
    parser.add_argument("source", help="checkpoint folder, or hub name such as nomic-ai/nomic-embed-text-v2-moe")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="BUNDLE", help="bundle folder to write, atomically"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument("--revision", help="commit, tag or branch of a hub name")
    parser.add_argument("--cache-dir", type=Path, help="cache folder of hub files (default: huggingface_hub's default)")
    parser.add_argument("--offline", action="store_true", help="do not use the network")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Export the checkpoint."""
    from moembed.export.pipeline import export, need_extras
    from moembed.export.writer import check_replaceable
    from moembed.models.locate import locate

    need_extras()
    check_replaceable(arguments.output, force=arguments.force)
    checkpoint = locate(
        arguments.source,
        revision=arguments.revision,
        cache_dir=arguments.cache_dir,
        local_files_only=arguments.offline,
    )
    bundle = export(checkpoint, arguments.output, force=arguments.force, log=log)
    certificate = bundle.manifest.certificate
    log(
        f"{bundle.manifest.name}, {bundle.manifest.recipe}, {bundle.size / 1e6:.1f} MB, cosine to the network "
        f"{certificate.embedding_mean_cosine:.6f} (minimum {certificate.embedding_min_cosine:.6f})"
    )
    emit(str(bundle.folder))
    return 0
