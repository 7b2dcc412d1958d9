"""`moembed quantize`."""

import argparse
from pathlib import Path
from typing import Any

from moembed.cli.common import Subparsers, emit, log, open_source
from moembed.errors import InputError


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "quantize",
        help="quantize an fp32 bundle to INT8 (needs the extra 'export')",
        description="Quantize an fp32 bundle: weights to int8 per output channel, activations to int8 per token; router, "
        "softmax, norms and biases stay float32. The result is compared with the fp32 bundle before it appears.",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="fp32 bundle folder, or hub name")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="bundle folder to write, atomically"
    )
    parser.add_argument("--recipe", default="int8", help="name of the quantization recipe (default: int8)")
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="FILE",
        help="representative texts, one per line, to reduce the quantization error (default: built-in texts)",
    )
    parser.add_argument("--offline", action="store_true", help="do not use the network")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Quantize the bundle."""
    from moembed.quantize.pipeline import quantize

    texts = None
    if arguments.calibrate is not None:
        try:
            texts = [line for line in arguments.calibrate.read_text("utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{arguments.calibrate} cannot be read as UTF-8 text: {error}") from error
    bundle = quantize(
        open_source(arguments.bundle, arguments),
        arguments.output,
        recipe=arguments.recipe,
        calibration=texts,
        force=arguments.force,
        log=log,
    )
    certificate = bundle.manifest.certificate
    log(
        f"{bundle.manifest.name}, {bundle.manifest.recipe}, {bundle.size / 1e6:.1f} MB, cosine to fp32 "
        f"{certificate.embedding_mean_cosine:.6f} (minimum {certificate.embedding_min_cosine:.6f})"
    )
    emit(str(bundle.folder))
    return 0
