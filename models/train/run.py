"""Training run: vocabulary, conversion, distillation, projection and contrastive training, with a checkpoint after each."""

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
from moembed.errors import InputError, OutputError
from moembed.files.paths import replacing_file
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.nomic_bert_moe.network import NomicMoe
from moembed.progress import progress
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.train.convert import student, teacher_targets, vocabulary, warm_start
from moembed.train.convert.conversion import Conversion
from moembed.train.convert.teacher import Teacher, teacher_path
from moembed.train.convert.teacher_targets import TeacherTarget
from moembed.train.data import corpus, pairs
from moembed.train.data.corpus import Encoded, Text
from moembed.train.data.pairs import Pair
from moembed.train.recipe import Recipe, load_recipe
from moembed.train.release import publish
from moembed.train.steps import projection
from moembed.train.steps.contrastive import ContrastiveTraining
from moembed.train.steps.distillation import Distillation, agreement, embed, pooled_embeddings

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
Log = Callable[[str], None]


def train(
    paths: Sequence[Path],
    pair_paths: Sequence[Path],
    out: Path,
    *,
    recipe: str,
    teacher: Path | None,
    init_from: Path | None,
    threads: int,
    log: Log,
) -> Path:
    """Train a model, or resume training it.

    Args:
        paths: texts, see `corpus`.
        pair_paths: pairs, see `pairs`; without any, the run ends after distillation.
        out: folder of the run: its state (`state/`) and the checkpoints `conversion/`, `distillation/`, `projection/` and
            `contrastive/`.
        recipe: see `load_recipe`.
        teacher: the teacher's file, or None for that of the installed package.
        init_from: a checkpoint or INT8 bundle made from that teacher, to start from instead of a conversion.
        threads: of torch; on a busy machine one thread is faster than two that wait for each other.
        log: called with progress and results.

    Returns:
        The folder of the last checkpoint.

    Raises:
        InputError: a recipe or a text cannot be used, or `out` has a run with other inputs.
        OutputError: the folder cannot be written.
        CheckpointError: the teacher cannot be read.
        MissingExtraError: the teacher is not installed.
    """
    torch.set_num_threads(threads)
    _reuse_freed_memory()
    loaded = load_recipe(recipe)
    if init_from and not loaded.distillation.tokens and not pair_paths:
        raise InputError(f"nothing to do: recipe {loaded.name} skips distillation (tokens = 0), and there are no pairs")
    run = _Run(loaded, Teacher(teacher or teacher_path()), paths, pair_paths, init_from, out, log)
    coordinates = run.init_from(init_from) if init_from else run.convert()
    if loaded.distillation.tokens:
        run.distill(coordinates)
    if pair_paths:
        run.fit_projection_to_pairs()
        run.train_contrastive(coordinates)
    return run.checkpoint


def _reuse_freed_memory() -> None:
    """Keep glibc from returning large tensors to the system: clearing new pages would take a third of the time."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)


class _Run:
    """Student in training, with the state in its output folder.

    Attributes:
        checkpoint: folder of the last checkpoint; the output folder before the first one.
    """

    def __init__(
        self,
        recipe: Recipe,
        teacher: Teacher,
        paths: Sequence[Path],
        pair_paths: Sequence[Path],
        init_from: Path | None,
        out: Path,
        log: Log,
    ) -> None:
        self._recipe, self._teacher, self._out, self._log = recipe, teacher, out, log
        self._state, self.checkpoint = out / "state", out
        try:
            self._state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {self._state}: {error.strerror}") from error
        share = recipe.data.validation_share
        self._train, self._validation = corpus.read_texts(paths, recipe.prompts, share)
        log(f"{len(self._train)} training texts, {len(self._validation)} validation texts")
        if not self._train or not self._validation:
            raise InputError(
                f"too few texts: validation_share = {share} of them left no training or no validation text"
            )
        self._train_pairs, self._validation_pairs = pairs.read_pairs(pair_paths, recipe.prompts, share)
        if pair_paths and not (self._train_pairs and self._validation_pairs):
            raise InputError(f"too few pairs: validation_share = {share} left no training or no validation pair")
        self._report: dict[str, Any] = {
            "recipe": dataclasses.asdict(recipe),
            "texts": {path.name: sha256_of(path) for path in [*paths, *pair_paths]},
        }
        if init_from:
            self._report["init_from"] = {path.name: sha256_of(path) for path in warm_start.model_files(init_from)}
        self._check_origin(self._state / "origin.json")

        template: dict[str, Any] = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
        max_tokens = recipe.data.max_tokens
        self._teacher_tokenizer = vocabulary.build_tokenizer(
            vocabulary.tokenizer_json(template, teacher.pieces), max_tokens
        )
        kept = self._select_vocabulary(self._state / "vocabulary.json")
        self._kept_ids = torch.tensor(kept)
        self._tokenizer_json = vocabulary.tokenizer_json(template, [teacher.pieces[i] for i in kept])
        self._tokenizer = vocabulary.build_tokenizer(self._tokenizer_json, max_tokens)
        self._network = NomicMoe(NomicMoeConfig.from_dict(publish.raw_config(recipe, teacher))).requires_grad_(False)
        self._set_projection(torch.eye(teacher.hidden))
        self._has_projection = False

    def init_from(self, folder: Path) -> Tensor:
        """Initialize the student from an existing model.

        Returns:
            The teacher's hidden coordinate for each of the student's, `[hidden]` int64.
        """
        model = warm_start.read_model(folder)
        coordinates = warm_start.init_from(self._network, model, self._teacher, self._kept_ids)
        if (matrix := model.parameters.get(f"{student.PROJECTION_PREFIX}weight")) is not None:
            self._set_projection(projection.nearest_orthogonal(matrix))
            self._has_projection = True
        return coordinates

    def convert(self) -> Tensor:
        """Convert the teacher, and publish the result.

        Returns:
            The teacher's hidden coordinate for each of the student's, which are the same.
        """
        recipe, data = self._recipe.conversion, self._recipe.data
        train, validation = (
            corpus.batches(self._sample_texts(texts, tokens), recipe.batch_tokens, data.length_multiple)
            for texts, tokens in ((self._train, recipe.tokens), (self._validation, data.validation_tokens))
        )
        conversion = Conversion(
            self._teacher, self._network, self._kept_ids, self._recipe, train, validation, self._log
        )
        with progress(len(self._teacher.layers), "layer", show=None) as advance:
            conversion.run(self._state, advance)
        self._publish("conversion", conversion.report)
        return torch.arange(self._teacher.hidden)

    def distill(self, coordinates: Tensor) -> None:
        """Train the projection if there is none yet, distill the teacher, and publish the result.

        Args:
            coordinates: the teacher's hidden coordinate for each of the student's.
        """
        train, validation = (
            self._teacher_targets(name, [encoded.text for encoded in self._sample_texts(texts, tokens)])
            for name, texts, tokens in (
                ("train", self._train, self._recipe.distillation.tokens),
                ("validation", self._validation, self._recipe.data.validation_tokens),
            )
        )
        # Upper limit of any imitation of the teacher: the teacher itself with the student's vocabulary.
        found = pooled_embeddings(lambda ids: self._teacher.encode(self._kept_ids[ids]), [t.ids for t in validation])
        limit = agreement(found, torch.stack([target.embedding for target in validation]))
        self._log(json.dumps({"teacher with the student's vocabulary": limit}))
        train, validation = ([target.permuted(coordinates) for target in targets] for targets in (train, validation))
        if not self._has_projection:
            embeddings = torch.stack([target.embedding for target in train])
            recipe, dims, seed = self._recipe.projection, self._recipe.student.dims, self._recipe.seed
            self._train_projection("neighbours", lambda: projection.fit_to_neighbours(embeddings, dims, recipe, seed))
        distillation = Distillation(self._network, self._recipe, train, validation, self._log)
        with progress(distillation.steps, "step", show=None) as advance:
            distillation.run(self._state / "distillation.safetensors", advance)
        self._report["vocabulary"] = limit
        self._publish("distillation", distillation.report)

    def fit_projection_to_pairs(self) -> None:
        """Train the projection on pairs, and publish the result."""
        recipe, dims, seed = self._recipe.projection, self._recipe.student.dims, self._recipe.seed
        initial = self._network.get_parameter(f"{student.PROJECTION_PREFIX}weight").clone()
        validation = self._embed_pairs(self._validation_pairs, recipe.batch_size)

        def recall() -> dict[str, float]:
            queries, documents = (student.project(self._network, side) for side in validation)
            return pairs.recall_at_1(queries, documents, dims)

        def fit() -> Tensor:
            queries, documents = self._embed_pairs(self._train_pairs, recipe.train_pairs)
            return projection.fit_to_pairs(queries, documents, initial, dims, recipe, seed)

        before = recall()
        self._train_projection("pairs", fit)
        report = [{"step": 0, **before}, {"step": recipe.steps, **recall()}]
        self._log(json.dumps(report))
        self._publish("projection", report)

    def train_contrastive(self, coordinates: Tensor) -> None:
        """Train on pairs unless the recipe skips it, and publish the result.

        Args:
            coordinates: the teacher's hidden coordinate for each of the student's.
        """
        recipe = self._recipe.contrastive
        if not recipe.epochs:
            return

        def targets_of(
            name: str, population: Sequence[Pair], count: int
        ) -> tuple[list[TeacherTarget], list[TeacherTarget]]:
            sampled = self._sample_pairs(population, count)
            texts = list(dict.fromkeys(text for pair in sampled for text in (pair.query, pair.document)))
            targets = [target.permuted(coordinates) for target in self._teacher_targets(f"pairs-{name}", texts)]
            by_text = dict(zip(texts, targets, strict=True))
            return [by_text[pair.query] for pair in sampled], [by_text[pair.document] for pair in sampled]

        train = targets_of("train", self._train_pairs, recipe.train_pairs)
        validation = targets_of("validation", self._validation_pairs, recipe.validation_pairs)
        training = ContrastiveTraining(self._network, self._recipe, train, validation, self._log)
        with progress(training.steps, "step", show=None) as advance:
            training.run(self._state / "contrastive.safetensors", advance)
        self._publish("contrastive", training.report)

    def _sample_texts(self, texts: list[Text], tokens: int) -> list[Encoded]:
        data, seed = self._recipe.data, self._recipe.seed
        return corpus.sample(
            texts,
            self._tokenizer,
            tokens=tokens,
            alpha=data.language_alpha,
            weights=data.language_weights,
            seed=seed,
        )

    def _sample_pairs(self, population: Sequence[Pair], count: int) -> list[Pair]:
        return pairs.sample(population, count, self._recipe.data.pair_kind_weights, self._recipe.seed)

    def _teacher_targets(self, name: str, texts: list[str]) -> list[TeacherTarget]:
        self._log(f"computing the teacher's outputs for {len(texts)} texts ({name})")
        folder = self._state / "targets" / name
        with progress(len(texts), "text", show=None) as advance:
            return teacher_targets.compute_or_load(
                texts, self._tokenizer, self._teacher, self._teacher_tokenizer, folder, advance
            )

    def _embed_pairs(self, population: Sequence[Pair], count: int) -> tuple[Tensor, Tensor]:
        """Return the student's embeddings of sampled queries and documents, `[pairs, hidden]`, before the projection."""
        sampled = self._sample_pairs(population, count)
        queries, documents = (
            embed(self._network, [torch.tensor(one.ids) for one in self._tokenizer.encode_batch_fast(texts)])
            for texts in ([pair.query for pair in sampled], [pair.document for pair in sampled])
        )
        return queries, documents

    def _train_projection(self, name: str, fit: Callable[[], Tensor]) -> None:
        """Set the projection from its file in the state, which is computed if it is missing."""
        path = self._state / f"projection-{name}.safetensors"
        if not path.is_file():
            with replacing_file(path) as partial:
                save_file({"projection": fit()}, partial)
        self._set_projection(load_file(path)["projection"])

    def _set_projection(self, matrix: Tensor) -> None:
        with torch.no_grad():
            self._network.get_parameter(f"{student.PROJECTION_PREFIX}weight").copy_(matrix)
            self._network.get_parameter(f"{student.PROJECTION_PREFIX}bias").zero_()

    def _publish(self, step: str, report: list[dict[str, Any]]) -> None:
        self._report[step] = report
        self.checkpoint = self._out / step
        digest = publish.write_checkpoint(
            self.checkpoint, self._network, self._recipe, self._teacher, self._tokenizer_json, self._report
        )
        self._log(f"{self.checkpoint}: sha256 of the weights {digest}")

    def _check_origin(self, path: Path) -> None:
        """Write down the inputs of the run, or make sure that they are the same as before."""
        origin = json.dumps(self._report)
        if not path.is_file():
            with replacing_file(path) as partial:
                partial.write_text(origin)
        elif path.read_text("utf-8") != origin:
            raise InputError(f"{path.parent} has a run with another recipe or other texts: name another output folder")

    def _select_vocabulary(self, path: Path) -> list[int]:
        """Return the teacher's token id of each of the student's, ascending, from a file that is computed if missing."""
        if not path.is_file():
            recipe, pieces = self._recipe.student, self._teacher.pieces
            counts = corpus.count_tokens(self._train, self._teacher_tokenizer)
            language_weights = self._recipe.data.language_weights
            weights = {name: weight**recipe.language_weight_power for name, weight in language_weights.items()}
            kept = vocabulary.select(
                pieces, counts, recipe.vocabulary_size, recipe.prior_weight, recipe.spelling_weight, weights
            )
            with replacing_file(path) as partial:
                partial.write_text(json.dumps(kept))
        found: list[int] = json.loads(path.read_text("utf-8"))
        return found
