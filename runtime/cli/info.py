"""`moembed info`."""

import argparse
import json
from dataclasses import asdict
from typing import Any

from moembed.cli.common import Subparsers, emit, emit_json


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="what a bundle is",
        description="Print a bundle's manifest: limits, prompts, provenance, certificate.",
    )
    parser.add_argument("bundle", nargs="?", help="bundle folder or hub name (default: the embedded model)")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument("--json", action="store_true", help="the manifest as JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Describe the bundle."""
    from moembed.sources import open_bundle

    bundle = open_bundle(arguments.bundle, local_files_only=arguments.offline)
    manifest = bundle.manifest
    if arguments.json:
        emit_json(asdict(manifest))
        return 0
    network = json.loads((bundle.folder / "config.json").read_text("utf-8"))
    source = manifest.source
    origin = f"{source.repo} @ {source.revision}" if source.repo else "a local checkpoint"
    rows = {
        "name": manifest.name,
        "folder": bundle.folder,
        "recipe": manifest.recipe,
        "size": f"{bundle.size / 1e6:.1f} MB in {len(manifest.files)} files",
        "vectors": f"{manifest.hidden_size} dimensions; trained to be cut to {', '.join(map(str, manifest.dims))}",
        "limit": f"{manifest.max_tokens} tokens a text, prompt and special tokens included",
        "network": f"{network['n_layer']} layers, {network['num_experts']} experts, top-{network['moe_top_k']}, "
        f"every {network['moe_every_n_layers']}th layer from the second",
        "source": f"{origin}, weights sha256 {source.weights_sha256}",
        "made with": ", ".join(f"{name} {version}" for name, version in manifest.made_with.items()),
        "certificate": ", ".join(f"{name} {value}" for name, value in manifest.certificate.items()),
        "prompts": "mandatory" if manifest.prompt_required else "optional" if manifest.prompts else "none",
    }
    for name, value in rows.items():
        emit(f"{name:<12} {value}")
    for name, text in manifest.prompts.items():
        emit(f"  {name:<26} {text!r}")
    return 0
