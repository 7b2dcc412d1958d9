"""Writes docs/bundle-format.md from the docstrings of the modules that read and write bundles, and from the operators' functions.

    python .ci/bundle_format.py [--check]

The docstrings are the source; the page is never edited. Needs the extra `export`. `--check` writes nothing, and fails if the
page is not what would be written.
"""

import argparse
import inspect
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType

import onnx

from moembed.bundle import certificate, int8, manifest
from moembed.export import functions as float_functions
from moembed.export import vocabulary
from moembed.quantize import attention_function, gated_functions, layout
from moembed.quantize import functions as int8_functions

PAGE = Path(__file__).parents[1] / "docs" / "bundle-format.md"
_HEAD = """# Bundle format

<!-- written by python .ci/bundle_format.py from docstrings: edit those -->

A bundle is a folder. This page specifies its manifest, with the certificate and the scales in it, `vocabulary.bin`, the
operators of its graph and the layout of quantized weights.
[Security](security.md#what-is-checked-when-a-bundle-is-opened) says what a reader checks,
[Compatibility](compatibility.md#bundles) which versions read which bundles.
"""
_OPERATORS = """The graph of a bundle has standard ONNX operators and operators of domain `{domain}`, version {version}. Each of
the latter is a model-local function whose body is made of standard operators of opset {opset}, so that any ONNX Runtime that
knows the opset runs the file. Print a body with `onnx.printer.to_text`. Dimensions: T tokens of all texts of a batch, without
padding; K and N the inputs and outputs of a linear layer.
"""
_EXPERTS = 2  # enough to show where the experts' own inputs begin


def main() -> None:
    """Write the page, or check it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="fail if the page is not current")
    text = page()
    if arguments.parse_args().check:
        if PAGE.read_text("utf-8") != text:
            sys.exit(f"{PAGE.name} is not current: python .ci/bundle_format.py")
        return
    PAGE.write_text(text, "utf-8")


def page() -> str:
    """The whole page."""
    opset, version, domain = float_functions.OPSET, float_functions.VERSION, float_functions.DOMAIN
    parts = [
        _HEAD,
        section("Manifest", manifest),
        section("Certificate", certificate),
        section("Scales of int8 vectors", int8),
        section("vocabulary.bin", vocabulary),
        "## Operators\n\n" + _OPERATORS.format(domain=domain, version=version, opset=opset),
        section("Operators of fp32 bundles", float_functions, level=3),
        operators([float_functions], float_functions.functions(_EXPERTS)),
        section("Further operators of INT8 bundles", int8_functions, level=3),
        operators([int8_functions, gated_functions, attention_function], int8_functions.int8_functions(_EXPERTS)),
        section("Layout of quantized weights", layout),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def section(title: str, module: ModuleType, *, level: int = 2) -> str:
    """A module's docstring under a heading."""
    return f"{'#' * level} {title}\n\n{_reflowed(inspect.cleandoc(module.__doc__ or ''))}\n"


def operators(modules: Sequence[ModuleType], functions: Iterable[onnx.FunctionProto]) -> str:
    """The signature of each function, and the comment on shapes that stands above its body in the source."""
    names = [function.name for function in functions]
    shapes: dict[str, str] = {}
    for module in modules:
        shapes |= _comments(inspect.getsource(module), names)
    lines = ["| operator | attributes | inputs | outputs |", "|---|---|---|---|"]
    for function in functions:
        cells = [
            ", ".join(f"`{name}`" for name in names) for names in (function.attribute, function.input, function.output)
        ]
        lines.append(f"| `{function.name}` | {' | '.join(cells)} |")
    lines += ["", "Inputs `w1_0`, `w1_1`, ... are one for each expert, however many there are. Shapes:", ""]
    lines += [f"- {name}: {text}" for name, text in shapes.items()]
    return "\n".join(lines) + "\n"


def _comments(source: str, names: list[str]) -> dict[str, str]:
    """The comments and docstrings with shapes, each for the operators that are named between it and the next one."""
    found: dict[str, str] = {}
    blocks = list(re.finditer(r'^(?:# [^\n]*\n)+|^    """.*?"""$', source, re.MULTILINE | re.DOTALL))
    kept = ""
    for block, following in zip(blocks, [*(block.start() for block in blocks[1:]), len(source)], strict=True):
        text = re.sub(r"\s+", " ", re.sub(r'^# |^ *"""|"""$', "", block[0], flags=re.MULTILINE)).strip()
        behind = source[block.end() : following]
        shaped = "{" not in text and ("[" in text or text.startswith("The same"))
        if shaped and behind.startswith("def "):
            kept = text.rstrip(".") + ". "  # of a function that several operators are made by, named behind it
            continue
        if shaped and (named := [name for name in names if re.search(rf"\b{name}\b", behind)]):
            found[", ".join(f"`{name}`" for name in named)] = kept + text
        kept = ""
    return found


def _reflowed(text: str) -> str:
    """Paragraphs as they are; an indented code block becomes a fenced one."""
    return re.sub(r"\n\n((?:    .*\n?)+)", lambda m: "\n\n```text\n" + inspect.cleandoc(m[1]) + "\n```\n", text)


if __name__ == "__main__":
    main()
