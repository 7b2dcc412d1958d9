"""Comparison of a bundle's certificate with a new measurement."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from moembed.bundle.bundle import Bundle
from moembed.bundle.certificate import Certificate, Quality, Stability
from moembed.bundle.int8 import Int8
from moembed.verify.tolerances import CERTIFICATE, EXAMPLE, INT8_CLIPPED, INT8_SCALE, QUALITY, Allowance

if TYPE_CHECKING:
    from moembed.verify.examples import ExampleResult
    from moembed.verify.parity import ParityReport

Value = str | int | float
_EXACT = Allowance(0.0)
_SHOWN_CHARACTERS = 16


@dataclass(frozen=True)
class Finding:
    """Stated and measured value of one field of a manifest.

    Attributes:
        field: name of the field, with dots where it is nested.
        stated: the manifest's value.
        found: the value measured now.
        allowed: largest difference between two numbers; strings must be equal.
    """

    field: str
    stated: Value
    found: Value
    allowed: float = 0.0

    @property
    def holds(self) -> bool:
        """True if the two values agree within the allowed difference."""
        if isinstance(self.stated, str) or isinstance(self.found, str):
            return self.stated == self.found
        return abs(self.stated - self.found) <= self.allowed

    def __str__(self) -> str:
        margin = f", allowed difference {self.allowed:.2g}" if self.allowed else ""
        return f"{self.field}: the certificate says {_shown(self.stated)}, found {_shown(self.found)}{margin}"

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return asdict(self) | {"holds": self.holds}


def of_bundle(bundle: Bundle, stability: Stability) -> list[Finding]:
    """Check what needs no reference: the size, the batch invariance, and the identity of the source."""
    certificate, source = bundle.manifest.certificate, bundle.manifest.source
    findings = [
        _finding("size", certificate.size, bundle.size),
        _finding("stability.differing", certificate.stability.differing, stability.differing),
    ]
    if certificate.reference.kind == "checkpoint":
        findings.append(_finding("reference.sha256", certificate.reference.sha256, source.weights_sha256))
    return findings


def of_reference(bundle: Bundle, reference: Bundle) -> Finding:
    """Check that an fp32 bundle is the one that the certificate names, or was made from the checkpoint that it names."""
    named = bundle.manifest.certificate.reference
    identity = reference.fingerprint if named.kind == "bundle" else reference.manifest.source.weights_sha256
    return _finding("reference.sha256", named.sha256, identity)


def of_int8(stated: Int8, found: Int8) -> list[Finding]:
    """Check the scales of int8 vectors."""
    findings = [
        _finding(f"int8.scales.{width}", scale, found.scales[width], INT8_SCALE)
        for width, scale in stated.scales.items()
    ]
    return findings + [
        _finding(f"int8.clipped.{width}", share, found.clipped[width], INT8_CLIPPED)
        for width, share in stated.clipped.items()
    ]


def of_comparison(certificate: Certificate, report: "ParityReport") -> list[Finding]:
    """Check the figures of a comparison with the reference over the probe texts."""
    names = ("texts", "tokens", *(name for name in CERTIFICATE if name != "same_experts"))
    findings = [_finding(name, getattr(certificate, name), getattr(report, name)) for name in names]
    stated, found = certificate.same_experts, {layer: routing.share for layer, routing in report.routing.items()}
    findings.append(_finding("same_experts", _layers(stated), _layers(found)))
    allowance = CERTIFICATE["same_experts"]
    for layer in sorted(stated.keys() & found.keys()):
        findings.append(_finding(f"same_experts.{layer}", stated[layer], found[layer], allowance))
    return findings


def of_examples(certificate: Certificate, results: "list[ExampleResult]") -> list[Finding]:
    """Check the errors of the published examples that the certificate lists; a newer spec may have others."""
    stated = certificate.examples or {}
    return [
        _finding(f"examples.{name}.error", stated[name].error, result.error, EXAMPLE)
        for result in results
        if (name := result.example.name) in stated
    ]


def of_quality(name: str, stated: Quality, found: Quality) -> list[Finding]:
    """Check the quality of a set that was evaluated again."""
    pairs = {
        "value": (stated.value, found.value),
        "baseline": (stated.baseline, found.baseline),
        "difference": (stated.value - stated.baseline, found.value - found.baseline),
    }
    findings = [_finding(f"quality.{name}.figure", stated.figure, found.figure)]
    return findings + [_finding(f"quality.{name}.{part}", *pair, QUALITY) for part, pair in pairs.items()]


def _finding(field: str, stated: Value, found: Value, allowance: Allowance | None = None) -> Finding:
    allowance = allowance or CERTIFICATE.get(field, _EXACT)
    return Finding(field, stated, found, 0.0 if isinstance(stated, str) else allowance.of(stated))


def _layers(shares: dict[int, float]) -> str:
    return "layers " + ", ".join(map(str, sorted(shares)))


def _shown(value: Value) -> str:
    if isinstance(value, str):
        return value if len(value) <= 2 * _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…"
    return f"{value:.9g}"
