"""`moembed quantize`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit, say
from moembed.errors import InputError


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Describe the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "quantize",
        help="an fp32 bundle to an INT8 bundle (needs the extra 'export')",
        description="Quantize an fp32 bundle by the role of its tensors: weights int8 per output channel, activations int8 per "
        "token row, router, softmax, norms and biases float32. The result is compared with the fp32 bundle before it appears.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="fp32 bundle folder, or hub name")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write, complete or not at all"
    )
    parser.add_argument("--recipe", default="int8", help="how to quantize (default: int8)")
    parser.add_argument(
        "--calibrate", type=Path, metavar="FILE", help="texts like yours, one a line (default: built-in ones)"
    )
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument("--force", action="store_true", help="replace a bundle that is already there")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Quantize the bundle."""
    from moembed.bundle.locate import open_bundle
    from moembed.quantize.pipeline import quantize

    texts = None
    if arguments.calibrate is not None:
        try:
            texts = [line for line in arguments.calibrate.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{arguments.calibrate} cannot be read as UTF-8 text: {error}") from error
    bundle = quantize(
        open_bundle(arguments.bundle, local_files_only=arguments.offline),
        arguments.output,
        recipe=arguments.recipe,
        calibration=texts,
        force=arguments.force,
        log=say,
    )
    certificate = bundle.manifest.certificate
    say(
        f"{bundle.manifest.name}, {bundle.manifest.recipe}, {bundle.size / 1e6:.1f} MB, cosine to fp32 "
        f"{certificate.embedding_mean_cosine:.6f} (least {certificate.embedding_min_cosine:.6f})"
    )
    emit(str(bundle.folder))
    return 0
