"""`moembed info`."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moembed.bundle.manifest import MEAN
from moembed.cli.common import Subparsers, emit, emit_json, open_source
from moembed.errors import BundleError, shown
from moembed.files.untrusted import parse_object, read_bounded

if TYPE_CHECKING:
    from moembed.bundle.certificate import Certificate, Quality
    from moembed.bundle.int8 import Int8

_MAX_CONFIG_SIZE = 1 << 20  # bytes
_EXPERT_SIZES = ("n_layer", "num_experts", "moe_top_k", "moe_every_n_layers")
_SIZES = ("num_hidden_layers", "num_attention_heads")  # of a model without experts


def add_parser(commands: "Subparsers[Any]") -> argparse.ArgumentParser:
    """Define the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="show the facts of a bundle",
        description="Print the manifest of a bundle: limits, prompts, provenance and certificate.",
    )
    parser.add_argument("bundle", nargs="?", help="bundle folder or hub name (default: the built-in model)")
    parser.add_argument("--offline", action="store_true", help="do not use the network")
    parser.add_argument("--json", action="store_true", help="print the manifest as JSON")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the facts of the bundle."""
    bundle = open_source(arguments.bundle, arguments)
    manifest = bundle.manifest
    if arguments.json:
        emit_json(manifest.to_dict())
        return 0
    source = manifest.source
    origin = f"{source.repo} @ {source.revision}" if source.repo else "a local checkpoint"
    rows = {
        "name": manifest.name,
        "folder": bundle.folder,
        "recipe": manifest.recipe,
        "size": f"{bundle.size / 1e6:.1f} MB in {len(manifest.files)} files",
        "vectors": f"{manifest.hidden_size} dimensions; trained for truncation to {', '.join(map(str, manifest.dims))}",
        "int8 scale": _scales(manifest.int8),
        "limit": f"{manifest.max_tokens} tokens per text, prompt and special tokens included"
        + (f": {manifest.limit_source}" if manifest.limit_source else ""),
        "network": _network(bundle.folder / "config.json", experts=bool(manifest.routers)),
        "pooling": ("mean of all tokens" if manifest.pooling == MEAN else "state of the first token")
        + (", normalized by a LayerNorm" if manifest.pooled_layer_norm else ""),
        "source": f"{origin}, weights sha256 {source.weights_sha256}",
        "made with": ", ".join(f"{name} {version}" for name, version in manifest.made_with.items()),
        "prompts": "mandatory" if manifest.prompt_required else "optional" if manifest.prompts else "none",
    }
    for name, value in rows.items():
        _emit_line(f"{name:<12} {value}")
    for name, text in manifest.prompts.items():
        _emit_line(f"  {name:<26} {text!r}")
    certificate = manifest.certificate
    _emit_line(
        f"{'certificate':<12} {certificate.texts} texts, {certificate.tokens:,} tokens, against {_reference(certificate)}"
    )
    for name, value in (_losses(certificate) | _checks(certificate)).items():
        _emit_line(f"  {name:<26} {value}")
    if certificate.examples:
        _emit_line(
            f"{'examples':<12} reproduces the {len(certificate.examples)} published examples; error, largest error allowed"
        )
        for name, example in certificate.examples.items():
            near_tie = "; near tie between experts, not judged" if example.near_tie else ""
            _emit_line(f"  {example.error:<8.2g} {example.allowed:<8.2g} {name}{near_tie}")
    _emit_line(f"{'quality':<12} {_quality_head(certificate)}")
    width = max((len(name) for name in certificate.quality), default=0)
    for name, quality in sorted(certificate.quality.items()):
        _emit_line(f"  {name:<{max(width, 26)}} {_quality_line(quality)}")
    return 0


def _emit_line(text: str) -> None:
    emit(text.replace("\n", r"\n"))  # no field can imitate another line


def _network(path: Path, *, experts: bool) -> str:
    """Describe the network by the sizes in a bundle's `config.json`."""
    if experts:
        layers, count, top_k, period = _sizes(path, _EXPERT_SIZES)
        return f"{layers} layers, {count} experts, top-{top_k}, every {period}th layer from the second"
    layers, heads = _sizes(path, _SIZES)
    return f"{layers} layers, {heads} attention heads, no experts"


def _sizes(path: Path, names: tuple[str, ...]) -> list[int]:
    hint = "copy or export the bundle again"
    try:
        raw = parse_object(read_bounded(path, _MAX_CONFIG_SIZE))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} is not a valid JSON object: {error}; {hint}") from error
    for name in names:
        if not isinstance(raw.get(name), int) or isinstance(raw[name], bool):
            found = shown(raw[name]) if name in raw else "missing"
            raise BundleError(f"{path}: {name} is {found}, expected an integer; {hint}")
    return [raw[name] for name in names]


def _scales(int8: "Int8 | None") -> str:
    if int8 is None:
        return "1/127 for every width (not calibrated: written by an older version)"
    scales = ", ".join(f"{scale:.3g} at {width}" for width, scale in sorted(int8.scales.items(), reverse=True))
    return f"{scales}; clips at most {100 * max(int8.clipped.values()):.2g} % of the components"


def _reference(certificate: "Certificate") -> str:
    what = {"checkpoint": "the checkpoint", "bundle": "the fp32 bundle"}[certificate.reference.kind]
    return f"{what}, sha256 {certificate.reference.sha256}"


def _losses(certificate: "Certificate") -> dict[str, str]:
    layers = ", ".join(f"layer {layer} {_percent(share)}" for layer, share in sorted(certificate.same_experts.items()))
    return {
        "embeddings, cosine": f"mean {certificate.embedding_mean_cosine:.6f}, minimum {certificate.embedding_min_cosine:.6f}",
        "embeddings, max-abs": f"{certificate.embedding_max_abs:.3g}",
        "hidden states, max-abs": f"{certificate.hidden_max_abs:.3g}",
        "10 nearest neighbours": f"{_percent(certificate.neighbour_overlap)} the same",
        "tokens with same experts": layers or "no MoE layer",
    }


def _checks(certificate: "Certificate") -> dict[str, str]:
    stability, machine, reference = certificate.stability, certificate.machine, certificate.reference
    threads = " and ".join(map(str, stability.threads))
    return {
        "batch-invariant": f"{'yes' if stability.passed else 'NO'}: {stability.differing} of {stability.comparisons} vectors "
        f"differ ({stability.texts} texts, {threads} threads)",
        "size": f"{certificate.size / 1e6:.1f} MB, {_percent(certificate.size / max(reference.size, 1))} of the "
        f"reference's {reference.size / 1e6:.1f} MB",
        "measured on": f"{machine.cpu} ({', '.join(machine.instructions) or 'instruction sets unknown'}), "
        f"{machine.threads} threads, {machine.system}, onnxruntime {machine.onnxruntime}, kernels {machine.kernels}",
    }


def _quality_head(certificate: "Certificate") -> str:
    if certificate.quality:
        return "full width, float32, times 100; fp32 bundle; difference"
    return "not certified; moembed evaluate SET --baseline FP32 --certify adds it"


def _quality_line(quality: "Quality") -> str:
    change = quality.value - quality.baseline
    ratio = f" ({100 * change / quality.baseline:+.2f} %)" if quality.baseline else ""
    return f"{quality.figure:<10} {100 * quality.value:6.2f} {100 * quality.baseline:6.2f} {100 * change:+6.2f}{ratio}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
