"""`python -m moembed.train.release.ship CHECKPOINT TEXTS...`: a checkpoint that training made becomes the built-in model.

Export, INT8, quality on the named sets into the certificate, model card: made aside, and put in place when all of it is there
and the bundle is small enough for a wheel.
"""

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from moembed.bundle.bundle import Bundle
from moembed.cli import main as moembed
from moembed.errors import InputError, MoembedError, OutputError
from moembed.files.paths import replacing_folder
from moembed.train.data import corpus
from moembed.train.release import card

LIMIT = 40_000_000  # bytes of the bundle, tokenizer included


def ship(
    checkpoint: Path,
    texts: Sequence[Path],
    *,
    data: Path,
    sets: Sequence[str],
    recipe: str,
    work: Path,
    bundle: Path,
    card_dir: Path,
) -> None:
    """Make the bundle and its card, and put them in place.

    Args:
        checkpoint: what training made; its recipe names the model.
        texts: what it learned from; some of them calibrate the INT8 bundle, and experts are counted in some.
        data: folder of the evaluation sets.
        sets: their names.
        recipe: of `moembed quantize`.
        work: folder for what is made on the way; what is there is made anew.
        bundle: where the INT8 bundle goes, over an older one.
        card_dir: where the card goes.

    Raises:
        InputError: the checkpoint says nothing of its making, a step failed, or the bundle is too large.
        OutputError: a file cannot be written.
    """
    made = card.recipe_of(checkpoint)["recipe"]
    named, calibration = work / made["name"], work / "calibration.txt"
    full, small = named.with_name(f"{named.name}-fp32"), named.with_name(f"{named.name}-int8")
    try:
        # A bundle is named after its checkpoint's folder.
        shutil.copytree(checkpoint, named, dirs_exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot copy {checkpoint} to {named}: {error}") from error
    _do("export", str(named), "-o", str(full), "--force")
    calibration.write_text("\n".join(_calibration(named, texts, made)), "utf-8")
    _do("quantize", str(full), "-o", str(small), "--recipe", recipe, "--calibrate", str(calibration), "--force")
    _do("evaluate", *sets, "--data", str(data), "--model", str(small), "--baseline", str(full), "--certify")
    if (size := Bundle.open(small).size) > LIMIT:
        raise InputError(f"{small} has {size:,} bytes, more than the {LIMIT:,} of a wheel: nothing was replaced")
    card.write(small, checkpoint, texts, card_dir, texts=card.TEXTS)
    with replacing_folder(bundle) as partial:
        shutil.copytree(small, partial, dirs_exist_ok=True)


def _do(*command: str) -> None:
    if code := moembed(command):
        raise InputError(f"`moembed {' '.join(command)}` failed with exit code {code}: nothing was replaced")


def _calibration(checkpoint: Path, texts: Sequence[Path], made: Mapping[str, Any]) -> list[str]:
    """Texts to calibrate by, without prompts and line breaks: drawn as training draws, so that the same files give the same."""
    from moembed.quantize.calibrate import MAX_TOKENS

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    learned, _ = corpus.read(texts, {"query": "", "passage": ""}, made["data"]["held_out"])
    drawn = corpus.sample(
        learned,
        tokenizer,
        tokens=MAX_TOKENS,
        flatten=made["data"]["flatten"],
        emphasis=made["data"]["emphasis"],
        seed=made["seed"],
    )
    return [" ".join(encoded.text.split()) for encoded in drawn]


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and ship."""
    parser = argparse.ArgumentParser(prog="python -m moembed.train.release.ship", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint that training made")
    parser.add_argument("text", type=Path, nargs="+", help="JSONL files that it learned from")
    parser.add_argument("--data", type=Path, required=True, help="folder of the evaluation sets")
    parser.add_argument("--sets", nargs="+", required=True, help="their names, as for `moembed evaluate`")
    parser.add_argument("--recipe", default="int8-table4", help="of `moembed quantize` (default: %(default)s)")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--bundle", type=Path, default=Path("runtime/default"), help="default: %(default)s")
    parser.add_argument("--card", type=Path, default=Path("models"), help="folder of the card (default: %(default)s)")
    chosen = parser.parse_args(argv)
    try:
        ship(
            chosen.checkpoint,
            chosen.text,
            data=chosen.data,
            sets=chosen.sets,
            recipe=chosen.recipe,
            work=chosen.work,
            bundle=chosen.bundle,
            card_dir=chosen.card,
        )
    except MoembedError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
