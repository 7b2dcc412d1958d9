"""A whole run: vocabulary, conversion, distillation, and the checkpoint that comes of it."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from moembed.bundle import sha256_of
from moembed.errors import InputError, OutputError
from moembed.models.config import NomicMoeConfig
from moembed.models.network import NomicMoe
from moembed.models.train import corpus, publish, targets, vocabulary
from moembed.models.train.convert import Conversion
from moembed.models.train.distil import Distillation
from moembed.models.train.recipe import Recipe, load_recipe
from moembed.models.train.teacher import Teacher, teacher_path
from moembed.paths import replacing_file
from moembed.progress import progress
from moembed.sources import DEFAULT_FOLDER

_LEAST = 6  # ids of a text that is worth reading


def run(
    paths: Sequence[Path],
    out: Path,
    *,
    recipe: str,
    teacher: Path | None,
    threads: int,
    say: Callable[[str], None],
) -> None:
    """Make a model, or go on making it.

    Args:
        paths: texts, see `corpus`.
        out: folder for the state of the run (`state/`) and its results, each a checkpoint.
        recipe: see `load_recipe`.
        teacher: the teacher's file, or None for the installed package's.
        threads: of torch; where other programs compute, one thread is faster than two that wait for each other.
        say: told what is being done and found.

    Raises:
        InputError: a recipe or a text cannot be used, or `out` holds a run of others.
        OutputError: the folder cannot be written.
        CheckpointError: the teacher cannot be read.
        MissingExtraError: the teacher is not installed.
    """
    torch.set_num_threads(threads)
    choices = load_recipe(recipe)
    source = Teacher(teacher or teacher_path())
    state = out / "state"
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {state}: {error.strerror}") from error
    origin = {"recipe": dataclasses.asdict(choices), "texts": {path.name: sha256_of(path) for path in paths}}
    _claim(state / "origin.json", origin)
    learned, held = corpus.read(paths, choices.prompts, choices.data.held_out)
    say(f"{len(learned)} texts to learn from, {len(held)} held out")
    kept = _vocabulary(state / "vocabulary.json", learned, source, choices)
    described = vocabulary.describe(_template(), [source.pieces[i] for i in kept])
    tokenizer = vocabulary.build(described, choices.data.max_tokens)
    torch.manual_seed(choices.seed)
    network = NomicMoe(NomicMoeConfig.from_dict(publish.raw_config(choices, source))).requires_grad_(False)

    def draw(texts: list[corpus.Text], tokens: int) -> list[corpus.Encoded]:
        return corpus.sample(
            texts, tokenizer, tokens=tokens, flatten=choices.data.flatten, least=_LEAST, seed=choices.seed
        )

    def publishing(name: str, **report: list[dict[str, Any]]) -> None:
        made = {
            "recipe": dataclasses.asdict(choices),
            "texts": {path.name: sha256_of(path) for path in paths},
            **report,
        }
        digest = publish.write(out / name, network, choices, source, described, made)
        say(f"{out / name}: sha256 of its weights {digest}")

    converted, size = choices.convert, choices.data.multiple
    conversion = Conversion(
        source,
        network,
        torch.tensor(kept),
        choices,
        corpus.batches(draw(learned, converted.tokens), converted.batch, size),
        corpus.batches(draw(held, choices.data.held_tokens), converted.batch, size),
        say,
    )
    with progress(len(source.layers), "layer", show=None) as advance:
        conversion.run(state, advance)
    publishing("converted", conversion=conversion.report)

    whole = vocabulary.build(vocabulary.describe(_template(), source.pieces), choices.data.max_tokens)
    goals = {}
    for name, texts, tokens in (
        ("held", held, choices.data.held_tokens),
        ("learned", learned, choices.distil.tokens),
    ):
        drawn = [encoded.text for encoded in draw(texts, tokens)]
        say(f"the teacher reads {len(drawn)} texts ({name})")
        with progress(len(drawn), "text", show=None) as advance:
            goals[name] = targets.make(drawn, tokenizer, source, whole, state / "targets" / name, advance)
    distillation = Distillation(network, choices, goals["learned"], goals["held"], say)
    with progress(distillation.steps, "step", show=None) as advance:
        distillation.run(state, advance)
    publishing("distilled", conversion=conversion.report, distillation=distillation.report)


def _claim(path: Path, origin: dict[str, Any]) -> None:
    """Write down what a run is made from, or make sure that it is the same."""
    if not path.is_file():
        with replacing_file(path) as partial:
            partial.write_text(json.dumps(origin))
    elif json.loads(path.read_text("utf-8")) != origin:
        raise InputError(f"{path.parent} is the state of another recipe or of other texts: name another output folder")


def _vocabulary(path: Path, texts: list[corpus.Text], teacher: Teacher, recipe: Recipe) -> list[int]:
    """The teacher's id of each of the student's, ascending; kept in a file."""
    if not path.is_file():
        whole = vocabulary.build(vocabulary.describe(_template(), teacher.pieces), recipe.data.max_tokens)
        counts = corpus.count(texts, whole)
        kept = vocabulary.choose(
            teacher.pieces, counts, recipe.student.vocabulary, recipe.student.prior, recipe.student.spelling
        )
        with replacing_file(path) as partial:
            partial.write_text(json.dumps(kept))
    found: list[int] = json.loads(path.read_text("utf-8"))
    return found


def _template() -> dict[str, Any]:
    """The embedded model's tokenizer, whose pipeline is the teacher's."""
    template: dict[str, Any] = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
    return template
