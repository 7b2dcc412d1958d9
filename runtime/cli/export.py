"""`moembed export`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit, say


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="a checkpoint to a bundle (needs the extra 'export')",
        description="Trace a NomicBert-MoE checkpoint into an ONNX bundle. Known models are pinned to a revision and checked "
        "against its sha256; remote code is never run; the graph is compared with the network before it is published.",
    )
    parser.add_argument("source", help="checkpoint folder, or hub name such as nomic-ai/nomic-embed-text-v2-moe")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="BUNDLE", help="folder to write, complete or not at all"
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle that is already there")
    parser.add_argument("--revision", help="commit, tag or branch of a hub name")
    parser.add_argument("--cache-dir", type=Path, help="hub cache (default: huggingface_hub's own)")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
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
    bundle = export(checkpoint, arguments.output, force=arguments.force, log=say)
    certificate = bundle.manifest.certificate
    say(
        f"{bundle.manifest.name}, {bundle.manifest.recipe}, {bundle.size / 1e6:.1f} MB, cosine to the network "
        f"{certificate.embedding_mean_cosine:.6f} (least {certificate.embedding_min_cosine:.6f})"
    )
    emit(str(bundle.folder))
    return 0
