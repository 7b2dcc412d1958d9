"""Fields of a `config.json` that all families treat alike, and the check that no field is left out.

The names are those of published files, of the files that transformers 4.47 to 5.24 write (`PretrainedConfig.to_dict`, with its
fields for generation), and of tools that add a field when they fine-tune a model.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from moembed.errors import CheckpointError, shown
from moembed.files.records import Positive, Rule, read_record

_T = TypeVar("_T")
REMEDY = "correct the file, or download or save the checkpoint again"
PositiveNumber = Annotated[float, Rule(lambda value: value > 0, "a number above 0")]
Dtype = Annotated[str, Rule(("float32", "float16", "bfloat16").__contains__, "float32, float16 or bfloat16")]
# Field -> the values that are implemented (None: it may also be missing), and the meaning of another value.
Implemented = Mapping[str, tuple[tuple[Any, ...], str]]

# Fields of transformers that change the network of any family.
COMMON: Implemented = {
    "is_decoder": ((False, None), "causal attention"),
    "add_cross_attention": ((False, None), "attention to the states of an encoder"),
    "cross_attention_hidden_size": ((None,), "attention to the states of an encoder"),
    "is_encoder_decoder": ((False, None), "an encoder with a decoder"),
    "tie_encoder_decoder": ((False, None), "an encoder with a decoder"),
    "pruned_heads": (({}, None), "attention heads removed"),
    "per_layer_config": (({}, None), "layers of different sizes"),
    "rope_scaling": ((None,), "scaled rotary positions"),
    "quantization_config": ((None,), "quantized tensors: export the checkpoint that they were made from"),
}

# Purpose of fields -> names of those that change nothing at inference, whatever their value.
IGNORED = {
    "names and versions": "_name_or_path name_or_path _commit_hash architectures auto_map _auto_class transformers_version"
    " transformers.js_config tokenizer_class unsloth_version unsloth_fixed",
    "training": "attn_pdrop embd_pdrop resid_pdrop moe_resid_pdrop attention_probs_dropout_prob hidden_dropout_prob"
    " classifier_dropout initializer_range router_aux_loss_coef gradient_checkpointing loss_type tf_legacy_loss"
    " max_trained_positions",
    "the head of another task": "id2label label2id num_labels problem_type finetuning_task task_specific_params"
    " summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj tie_word_embeddings",
    "choice of an implementation": "_attn_implementation _attn_implementation_autoset attn_implementation"
    " _experts_implementation experts_implementation moe_impl use_flash_attn fused_bias_fc fused_dropout_add_ln"
    " use_xentropy dense_seq_output reorder_and_upcast_attn chunk_size_feed_forward torchscript use_bfloat16 use_cache",
    "outputs to return": "output_attentions output_hidden_states output_scores return_dict return_dict_in_generate"
    " tie_last_hidden_states",
    "token ids, which the tokenizer has": "bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id"
    " decoder_start_token_id forced_bos_token_id forced_eos_token_id suppress_tokens begin_suppress_tokens",
    "generation of text": "prefix max_length min_length do_sample early_stopping num_beams num_beam_groups"
    " diversity_penalty temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size"
    " encoder_no_repeat_ngram_size bad_words_ids num_return_sequences remove_invalid_values"
    " exponential_decay_length_penalty",
}
IGNORED_NAMES = frozenset(" ".join(IGNORED.values()).split())

# Part of the name of a class in `architectures` -> what a network of that kind is.
_HEADS = {
    "ForSequenceClassification": "a classifier or reranker, which scores texts or pairs of texts and makes no vector of one",
    "ForMaskedLM": "a language model, or a sparse encoder such as SPLADE: it was not trained to make one vector of a text",
    "ForPreTraining": "a language model: it was not trained to make one vector of a text",
    "ForTokenClassification": "a classifier of tokens",
    "ForQuestionAnswering": "a model that finds answers in a text",
}


@dataclass(frozen=True, kw_only=True)
class SizeFields:
    """Sizes of a network under the names of transformers, and the dtype that its tensors were saved in."""

    vocab_size: Positive
    hidden_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    intermediate_size: Positive
    layer_norm_eps: PositiveNumber
    max_position_embeddings: Positive
    torch_dtype: Dtype | None = None
    dtype: Dtype | None = None

    @property
    def sizes(self) -> dict[str, Any]:
        """Arguments of `moembed.models.config.NetworkConfig` that the fields give."""
        return {
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_hidden_layers,
            "num_heads": self.num_attention_heads,
            "ffn_size": self.intermediate_size,
            "layer_norm_eps": self.layer_norm_eps,
            "max_positions": self.max_position_embeddings,
            "dtype": self.torch_dtype or self.dtype or "float32",
        }


def check_fields(
    raw: Mapping[str, Any], implemented: Implemented, known: Collection[str], contradictions: Sequence[str] = ()
) -> None:
    """Refuse a `config.json` that asks for something that is not implemented.

    Args:
        raw: its fields.
        implemented: the fields whose value is checked.
        known: further fields that the family reads or ignores; any other is refused unless it is null or false.
        contradictions: further reasons to refuse it, a line each.

    Raises:
        CheckpointError: it asks for that; the error lists every reason.
    """
    refused = [
        f"  {name} = {shown(raw[name])}: {meaning}; implemented: {' or '.join(map(repr, allowed))}"
        for name, (allowed, meaning) in implemented.items()
        if name in raw and not is_one_of(raw[name], allowed)
    ]
    refused += [
        f"  {name} is missing; it must be {allowed[0]!r}"
        for name, (allowed, _) in implemented.items()
        if name not in raw and None not in allowed
    ]
    refused += contradictions
    refused += [
        f"  {name} = {shown(value)}: an unknown field, which may change the network; remove it if it does not"
        for name, value in raw.items()
        if name not in known and name not in implemented and value is not None and value is not False
    ]
    if refused:
        raise CheckpointError("config.json asks for a network that is not implemented:\n" + "\n".join(refused))


def read_fields(kind: type[_T], raw: Mapping[str, Any], names: Collection[str]) -> _T:
    """Read the fields that give the sizes of a network.

    Raises:
        CheckpointError: one is missing or of the wrong type.
    """
    found = {name: value for name, value in raw.items() if name in names}
    return read_record(kind, found, "config.json", error=CheckpointError, remedy=REMEDY, use_defaults=True)


def foreign_heads(raw: Mapping[str, Any], encoders: Sequence[str]) -> list[str]:
    """Describe what else than one of some classes of encoders `architectures` names; a line, or none."""
    names = raw.get("architectures")
    if names is None or (isinstance(names, list) and len(names) == 1 and names[0] in encoders):
        return []
    text = shown(names)
    meaning = next((meaning for head, meaning in _HEADS.items() if head in text), "another network")
    return [f"  architectures = {text}: {meaning}; implemented: {' or '.join(repr([name]) for name in encoders)}"]


def invalid(found: str) -> CheckpointError:
    """Return the error about sizes that contradict each other, or that no network can have."""
    return CheckpointError(f"config.json: {found}: {REMEDY}")


def is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Return True if a value is one of those allowed, as JSON tells them apart."""
    # 0 == False and 1 == True in Python; in a config they are different answers.
    return any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed)
