"""Training recipes: every hyperparameter of a model, as data in `recipes/*.toml` or in a file of your own."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from moembed.errors import InputError
from moembed.files.records import read_toml

RECIPE_FILE = "recipe.json"  # of a checkpoint: its recipe, the digests of its inputs, and the results of training


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompts in front of queries and of passages."""

    query: str
    passage: str


@dataclass(frozen=True, kw_only=True)
class StudentRecipe:
    """Architecture of the student; all other sizes are the teacher's.

    Attributes:
        vocabulary_size: pieces of the tokenizer.
        prior_weight: see `vocabulary.select`.
        spelling_weight: see `vocabulary.select`.
        language_weight_power: a language's weight in that selection is its `DataRecipe.language_weights` to this power; 0 weighs
            all alike.
        num_experts: experts of every mixture.
        top_k: experts per token.
        moe_every: layer i is a mixture iff i % moe_every == 1.
        ffn_div: an expert's inner width is the teacher's divided by this.
        rotary_base: base of the rotary frequencies.
        dims: widths that embeddings may be truncated to, widest first.
    """

    vocabulary_size: int
    prior_weight: float
    spelling_weight: float
    language_weight_power: float
    num_experts: int
    top_k: int
    moe_every: int
    ffn_div: int
    rotary_base: float
    dims: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DataRecipe:
    """Sampling of the texts.

    Attributes:
        validation_share: share of the texts held out for validation.
        validation_tokens: tokens sampled from these.
        language_alpha: a language with n texts is sampled in proportion to n ** language_alpha,
        language_weights: times its weight; 1 if absent.
        pair_kind_weights: sampling rate of each pair by its kind, see `repository.Kind`; 1 if absent.
        max_tokens: longer texts are truncated.
        length_multiple: lengths are rounded down to multiples of this, so that batches are full.
    """

    validation_share: float
    validation_tokens: int
    language_alpha: float
    language_weights: dict[str, float]
    pair_kind_weights: dict[str, float]
    max_tokens: int
    length_multiple: int


@dataclass(frozen=True, kw_only=True)
class AttentionRecipe:
    """Fit of queries and keys to the teacher's attention, by Adam.

    Attributes:
        learning_rate: of weights.
        bias_learning_rate: of biases.
        epochs: passes over the conversion's text, for each layer.
    """

    learning_rate: float
    bias_learning_rate: float
    epochs: int


@dataclass(frozen=True, kw_only=True)
class ConversionRecipe:
    """Closed-form conversion.

    Attributes:
        tokens: tokens of training text.
        batch_tokens: tokens per batch.
        ridge_strengths: candidates for the penalty of the regressions, selected on validation text.
        router_mass: candidates for the mean sum of a token's router weights, selected on validation text.
    """

    tokens: int
    batch_tokens: int
    ridge_strengths: tuple[float, ...]
    router_mass: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ProjectionRecipe:
    """Training of the projection, by Adam.

    Attributes:
        learning_rate: of the steps.
        steps: number of steps.
        batch_size: texts, or pairs, per step.
        temperature: of the similarities of texts.
        neighbours_weight: weight of the neighbour loss when training on pairs.
        train_pairs: training pairs.
        pair_temperature: of the similarities of queries and documents.
        margin: see `pairs.hard_negatives`.
        zeroed_outputs: outputs that a release sets to 0, because they are almost the same in every text.
        whitening: share by which a release evens out the variance of the others; 1 makes it the same in all directions.
    """

    learning_rate: float
    steps: int
    batch_size: int
    temperature: float
    neighbours_weight: float
    train_pairs: int
    pair_temperature: float
    margin: float
    zeroed_outputs: tuple[int, ...] = ()
    whitening: float = 0.0


@dataclass(frozen=True, kw_only=True)
class StepsRecipe:
    """Hyperparameters common to distillation and contrastive training.

    Attributes:
        learning_rate: of the optimizers, at its peak.
        warmup_steps: steps until the peak.
        weight_decay: of the optimizers.
        max_grad_norm: norm that gradients are clipped to.
        save_every: steps between checkpoints.
    """

    learning_rate: float
    warmup_steps: int
    weight_decay: float
    max_grad_norm: float
    save_every: int


@dataclass(frozen=True, kw_only=True)
class DistillationRecipe(StepsRecipe):
    """Distillation after the conversion.

    Attributes:
        tokens: tokens of training text, each used once; 0 skips distillation.
        batch_tokens: tokens per batch of texts of equal length.
        gradient_accumulation: batches per step.
        states_weight: weight of the loss on every token's last hidden state.
        embeddings_weight: weight of the loss on embeddings.
        neighbours_weight: weight of the loss on the similarities within a batch, at every width.
        temperature: of these similarities.
        bank_weight: weight of the loss on the similarities to the teacher's embeddings of all training texts.
        bank_temperature: of these similarities.
        balance_weight: weight of the routers' load-balancing loss.
    """

    tokens: int
    batch_tokens: int
    gradient_accumulation: int
    states_weight: float
    embeddings_weight: float
    neighbours_weight: float
    temperature: float
    bank_weight: float
    bank_temperature: float
    balance_weight: float


@dataclass(frozen=True, kw_only=True)
class ContrastiveRecipe(StepsRecipe):
    """Contrastive training after distillation, if there are pairs.

    Attributes:
        train_pairs: training pairs.
        validation_pairs: validation pairs.
        trained_layers: number of last layers that are trained; the layers below are frozen.
        batch_pairs: pairs per batch.
        epochs: passes over the pairs; 0 skips contrastive training.
        batch_tokens: tokens in memory with gradients at a time.
        consistency_rank: see `pairs.consistent`.
        hard_negatives: hard negatives per pair.
        margin: see `pairs.hard_negatives`.
        temperature: of all similarities.
        embeddings_weight: weight of the distance from the teacher's embeddings; that of the contrastive loss is 1.
        neighbours_weight: weight of the loss on the similarities within a batch, at every width.
        balance_weight: weight of the routers' load-balancing loss.
    """

    train_pairs: int
    validation_pairs: int
    trained_layers: int
    batch_pairs: int
    epochs: int
    batch_tokens: int
    consistency_rank: int
    hard_negatives: int
    margin: float
    temperature: float
    embeddings_weight: float
    neighbours_weight: float
    balance_weight: float


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All hyperparameters of a model; `seed` determines every random choice."""

    name: str
    seed: int
    prompts: Prompts
    student: StudentRecipe
    data: DataRecipe
    attention: AttentionRecipe
    conversion: ConversionRecipe
    projection: ProjectionRecipe
    distillation: DistillationRecipe
    contrastive: ContrastiveRecipe


def load_recipe(name: str) -> Recipe:
    """Read a recipe of the package by name, or a file by path.

    Raises:
        InputError: the recipe does not exist, or has an unknown, missing or ill-typed key.
    """
    path = Path(name)
    try:
        if path.suffix == ".toml":
            text = path.read_text("utf-8")
        else:
            text = (resources.files("moembed.train") / "recipes" / f"{name}.toml").read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {name}: {error}; name a recipe of the package or a .toml file") from error
    return read_toml(
        Recipe, text, f"recipe {name}", error=InputError, remedy="compare it with the recipe `default` of the package"
    )
