"""A whole run: vocabulary, conversion, distillation, a rotation, contrastive steps, and the checkpoints that come of it."""

import ctypes
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moembed.bundle.bundle import sha256_of
from moembed.bundle.locate import DEFAULT_FOLDER
from moembed.errors import InputError, OutputError
from moembed.files.paths import replacing_file
from moembed.models.config import NomicMoeConfig
from moembed.models.network import NomicMoe
from moembed.progress import progress
from moembed.train.convert import init_from as beginning
from moembed.train.convert import student, targets, vocabulary
from moembed.train.convert.conversion import Conversion
from moembed.train.convert.targets import Targets
from moembed.train.convert.teacher import Teacher, teacher_path
from moembed.train.data import corpus, pairs
from moembed.train.data.corpus import Encoded, Text
from moembed.train.data.pairs import Pair
from moembed.train.recipe import Recipe, load_recipe
from moembed.train.release import projection as rotation
from moembed.train.release import publish
from moembed.train.steps.contrast import Contrast
from moembed.train.steps.distil import Distillation, agreement, read, vectors

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
Log = Callable[[str], None]


def run(
    paths: Sequence[Path],
    pair_paths: Sequence[Path],
    out: Path,
    *,
    recipe: str,
    teacher: Path | None,
    start: Path | None,
    threads: int,
    log: Log,
) -> None:
    """Make a model, or go on making it.

    Args:
        paths: texts, see `corpus`.
        pair_paths: pairs, see `pairs`; without any, the run ends with the steps towards the teacher.
        out: folder for the state of the run (`state/`) and its results, the checkpoints `converted/`, `distilled/`, `turned/`
            and `contrasted/`.
        recipe: see `load_recipe`.
        teacher: the teacher's file, or None for the installed package's.
        start: a checkpoint or INT8 bundle made from that teacher, to begin with instead of a conversion.
        threads: of torch; where other programs compute, one thread is faster than two that wait for each other.
        log: told what is being done and found.

    Raises:
        InputError: a recipe or a text cannot be used, or `out` holds a run of others.
        OutputError: the folder cannot be written.
        CheckpointError: the teacher cannot be read.
        MissingExtraError: the teacher is not installed.
    """
    torch.set_num_threads(threads)
    _keep_memory()
    chosen = load_recipe(recipe)
    if start and not chosen.distil.tokens and not pair_paths:
        raise InputError(
            f"nothing to do: recipe {chosen.name} takes no steps towards the teacher, and there are no pairs"
        )
    made = _Run(chosen, Teacher(teacher or teacher_path()), paths, pair_paths, start, out, log)
    coordinates = made.begin(start) if start else made.convert()
    if chosen.distil.tokens:
        made.distil(coordinates)
    if pair_paths:
        made.turn()
        made.contrast(coordinates)


def _keep_memory() -> None:
    """Have glibc reuse what tensors leave: it would give large ones back, and clearing new pages takes a third of the time."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)


class _Run:
    """A student on its way."""

    def __init__(
        self,
        recipe: Recipe,
        teacher: Teacher,
        paths: Sequence[Path],
        pair_paths: Sequence[Path],
        start: Path | None,
        out: Path,
        log: Log,
    ) -> None:
        self._recipe, self._teacher, self._out, self._log = recipe, teacher, out, log
        self._state = out / "state"
        try:
            self._state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self._state}: {error.strerror}") from error
        self._learned, self._held = corpus.read(paths, recipe.prompts, recipe.data.held_out)
        log(f"{len(self._learned)} texts to learn from, {len(self._held)} held out")
        if not self._learned or not self._held:
            raise InputError("too few texts: some are to learn from, and some are held out to choose by")
        self._pairs = pairs.read(pair_paths, recipe.prompts, recipe.data.held_out)
        if pair_paths and not all(self._pairs):
            raise InputError("too few pairs: some are to learn from, and some are held out to choose by")
        self._report: dict[str, Any] = {
            "recipe": dataclasses.asdict(recipe),
            "texts": {path.name: sha256_of(path) for path in [*paths, *pair_paths]},
        }
        if start:
            self._report["start"] = {path.name: sha256_of(path) for path in beginning.files(start)}
        self._claim(self._state / "origin.json")

        template: dict[str, Any] = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
        self._whole = vocabulary.build(vocabulary.describe(template, teacher.pieces), recipe.data.max_tokens)
        kept = self._vocabulary(self._state / "vocabulary.json")
        self._kept = torch.tensor(kept)
        self._described = vocabulary.describe(template, [teacher.pieces[i] for i in kept])
        self._tokenizer = vocabulary.build(self._described, recipe.data.max_tokens)
        self._network = NomicMoe(NomicMoeConfig.from_dict(publish.raw_config(recipe, teacher))).requires_grad_(False)
        self._project(torch.eye(teacher.hidden))
        self._turned = False

    def begin(self, start: Path) -> Tensor:
        """Begin with a model that was made before.

        Returns:
            The order of its coordinates: the teacher's place of each, `[hidden]` int64.
        """
        found = beginning.read(start)
        coordinates = beginning.begin(self._network, found, self._teacher, self._kept)
        if (turn := found.parameters.get(f"{student.PROJECTION}weight")) is not None:
            self._project(rotation.nearest(turn))
            self._turned = True
        return coordinates

    def convert(self) -> Tensor:
        """Convert the teacher and publish what comes of it.

        Returns:
            The order of its coordinates, which is the teacher's.
        """
        choices, multiple = self._recipe.convert, self._recipe.data.multiple
        conversion = Conversion(
            self._teacher,
            self._network,
            self._kept,
            self._recipe,
            corpus.batches(self._draw(self._learned, choices.tokens), choices.batch, multiple),
            corpus.batches(self._draw(self._held, self._recipe.data.held_tokens), choices.batch, multiple),
            self._log,
        )
        with progress(len(self._teacher.layers), "layer", show=None) as advance:
            conversion.run(self._state, advance)
        self._publish("converted", conversion=conversion.report)
        return torch.arange(self._teacher.hidden)

    def distil(self, coordinates: Tensor) -> None:
        """Learn the projection, take the gradient steps towards the teacher, and publish what comes of them.

        Args:
            coordinates: the order of the network's.
        """
        learned = self._goals("learned", self._drawn(self._learned, self._recipe.distil.tokens))
        held = self._goals("held", self._drawn(self._held, self._recipe.data.held_tokens))
        # What no student can do better than while it only imitates: the teacher itself, reading the student's pieces.
        found = vectors(lambda ids: self._teacher.encode(self._kept[ids]), [target.ids for target in held])
        respelt = agreement(found, torch.stack([target.vector for target in held]))
        self._log(json.dumps({"teacher in the student's vocabulary": respelt}))
        learned, held = ([target.permuted(coordinates) for target in side] for side in (learned, held))
        embeddings = torch.stack([target.vector for target in learned])
        choices = self._recipe.rotate, self._recipe.seed
        if not self._turned:
            self._turn("rotation", lambda: rotation.learn(embeddings, self._recipe.student.dims, *choices))
        distillation = Distillation(self._network, self._recipe, learned, held, self._log)
        with progress(distillation.steps, "step", show=None) as advance:
            distillation.run(self._state / "distillation.safetensors", advance)
        self._publish("distilled", vocabulary=respelt, distillation=distillation.report)

    def turn(self) -> None:
        """Learn the projection again, from pairs as the student reads them, and publish what comes of it."""
        choices, dims = self._recipe.rotate, self._recipe.student.dims
        begin = self._network.get_parameter(f"{student.PROJECTION}weight").clone()
        held = self._read(self._pairs[1], choices.texts)

        def judge() -> dict[str, float]:
            queries, documents = (student.project(self._network, side) for side in held)
            return pairs.found(queries, documents, dims)

        def learn() -> Tensor:
            return rotation.refine(*self._read(self._pairs[0], choices.pairs), begin, dims, choices, self._recipe.seed)

        report = [{"step": 0, **judge()}]
        self._turn("turned", learn)
        report.append({"step": choices.steps, **judge()})
        self._log(json.dumps(report))
        self._publish("turned", rotation=report)

    def contrast(self, coordinates: Tensor) -> None:
        """Take the contrastive steps, if there are any, and publish what comes of them.

        Args:
            coordinates: the order of the network's, of which the teacher does not know.
        """
        choices = self._recipe.contrast
        if not choices.passes:
            return

        def goals(name: str, own: Sequence[Pair]) -> tuple[list[Targets], list[Targets]]:
            texts = list(dict.fromkeys(text for pair in own for text in (pair.query, pair.document)))
            made = [goal.permuted(coordinates) for goal in self._goals(f"pairs-{name}", texts)]
            known = dict(zip(texts, made, strict=True))
            return [known[pair.query] for pair in own], [known[pair.document] for pair in own]

        learned, held = (
            goals(name, self._some(own, count))
            for name, own, count in zip(("learned", "held"), self._pairs, (choices.drawn, choices.held), strict=True)
        )
        steps = Contrast(self._network, self._recipe, learned, held, self._log)
        with progress(steps.steps, "step", show=None) as advance:
            steps.run(self._state / "contrast.safetensors", advance)
        self._publish("contrasted", contrast=steps.report)

    def _draw(self, texts: list[Text], tokens: int) -> list[Encoded]:
        data, seed = self._recipe.data, self._recipe.seed
        return corpus.sample(
            texts,
            self._tokenizer,
            tokens=tokens,
            flatten=data.flatten,
            emphasis=data.emphasis,
            seed=seed,
        )

    def _drawn(self, texts: list[Text], tokens: int) -> list[str]:
        return [encoded.text for encoded in self._draw(texts, tokens)]

    def _some(self, own: Sequence[Pair], count: int) -> list[Pair]:
        return pairs.sample(own, count, self._recipe.data.pairs, self._recipe.seed)

    def _goals(self, name: str, texts: list[str]) -> list[Targets]:
        self._log(f"the teacher reads {len(texts)} texts ({name})")
        folder = self._state / "targets" / name
        with progress(len(texts), "text", show=None) as advance:
            return targets.make(texts, self._tokenizer, self._teacher, self._whole, folder, advance)

    def _read(self, own: Sequence[Pair], count: int) -> tuple[Tensor, Tensor]:
        """The student's embeddings of queries and documents, `[pairs, hidden]`, not yet projected."""
        some = self._some(own, count)
        queries, documents = (
            read(self._network, [torch.tensor(one.ids) for one in self._tokenizer.encode_batch_fast(side)])
            for side in ([pair.query for pair in some], [pair.document for pair in some])
        )
        return queries, documents

    def _turn(self, name: str, learn: Callable[[], Tensor]) -> None:
        """Have the projection turn embeddings; the rotation is kept in a file."""
        path = self._state / f"{name}.safetensors"
        if not path.is_file():
            with replacing_file(path) as partial:
                save_file({"rotation": learn()}, partial)
        self._project(load_file(path)["rotation"])

    def _project(self, turn: Tensor) -> None:
        with torch.no_grad():
            self._network.get_parameter(f"{student.PROJECTION}weight").copy_(turn)
            self._network.get_parameter(f"{student.PROJECTION}bias").zero_()

    def _publish(self, name: str, **found: Any) -> None:
        self._report |= found
        digest = publish.write(
            self._out / name, self._network, self._recipe, self._teacher, self._described, self._report
        )
        self._log(f"{self._out / name}: sha256 of its weights {digest}")

    def _claim(self, path: Path) -> None:
        """Write down what the run is made from, or make sure that it is the same as before."""
        if not path.is_file():
            with replacing_file(path) as partial:
                partial.write_text(json.dumps(self._report))
        elif json.loads(path.read_text("utf-8")) != self._report:
            raise InputError(f"{path.parent} is of another recipe or of other texts: name another output folder")

    def _vocabulary(self, path: Path) -> list[int]:
        """The teacher's id of each of the student's, ascending; kept in a file."""
        if not path.is_file():
            choices, pieces = self._recipe.student, self._teacher.pieces
            counts = corpus.count(self._learned, self._whole)
            weights = {language: weight**choices.speakers for language, weight in self._recipe.data.emphasis.items()}
            kept = vocabulary.choose(pieces, counts, choices.vocabulary, choices.prior, choices.spelling, weights)
            with replacing_file(path) as partial:
                partial.write_text(json.dumps(kept))
        found: list[int] = json.loads(path.read_text("utf-8"))
        return found
