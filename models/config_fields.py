"""Fields that a `config.json` of the family may hold: which are read, checked or ignored.

The names are those of the published `config.json`, of the file that transformers 4.47 to 5.24 writes for a model loaded from
it (`PretrainedConfig.to_dict`, with its fields for generation), and of tools that add a field when they fine-tune a model. Any
other field is refused.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Any

from moembed.files.records import Count, Positive, Rule

_PositiveNumber = Annotated[float, Rule(lambda value: value > 0, "a number above 0")]
_Dtype = Annotated[str, Rule(("float32", "float16", "bfloat16").__contains__, "float32, float16 or bfloat16")]


@dataclass(frozen=True, kw_only=True)
class ReadFields:
    """Fields that give the sizes of the network, or the dtype that its tensors were saved in."""

    vocab_size: Positive
    n_embd: Positive
    n_layer: Positive
    n_head: Positive
    n_inner: Positive
    ffn_div: Positive = 1
    num_experts: Positive
    moe_top_k: Positive
    moe_every_n_layers: Positive
    layer_norm_epsilon: _PositiveNumber
    rotary_emb_base: _PositiveNumber
    n_positions: Positive
    pad_token_id: Count
    pad_vocab_size_multiple: Positive = 1
    torch_dtype: _Dtype | None = None
    dtype: _Dtype | None = None
    projection: bool | None = None


READ = frozenset(field.name for field in fields(ReadFields))

# Field -> the values that are implemented (None: it may also be missing), and the meaning of another value.
IMPLEMENTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "model_type": (("nomic_bert",), "another architecture"),
    "activation_function": (("gelu",), "another activation (swiglu/geglu: a gated MLP, as in nomic-embed v1 and v1.5)"),
    "use_rms_norm": ((None, False), "RMSNorm instead of LayerNorm"),
    "prenorm": ((False,), "normalization before instead of after each sub-layer"),
    "parallel_block": ((False,), "attention and MLP computed side by side"),
    "parallel_block_tied_norm": ((False,), "one norm shared by a parallel block"),
    "causal": ((False,), "causal attention"),
    "add_pooling_layer": ((False,), "a pooler with weights of its own"),
    "qkv_proj_bias": ((True,), "attention without biases"),
    "mlp_fc1_bias": ((True,), "a dense MLP without its first bias"),
    "mlp_fc2_bias": ((True,), "a dense MLP without its second bias"),
    "rotary_emb_fraction": ((1.0, 1), "partly rotated or absolute positions"),
    "rotary_emb_interleaved": ((False,), "interleaved rotary pairs"),
    "rotary_emb_scale_base": ((None,), "XPos scaling"),
    "rotary_scaling_factor": ((None,), "dynamic-NTK rotary scaling"),
    "scale_attn_weights": ((True,), "attention scores that are not divided by sqrt(head_dim)"),
    "scale_attn_by_inverse_layer_idx": ((False,), "attention scores scaled by layer"),
    "moe_normalize_expert_weights": ((False, None), "renormalized top-k weights"),
    "expert_choice_router": ((False, None), "expert-choice routing"),
    "num_shared_experts": ((0, None), "shared experts"),
    "type_vocab_size": ((1,), "more than one token type"),
    # Further fields of transformers that change the network.
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

# Field of transformers' own classes -> the field above that it repeats, with the same value.
SAME_AS = {
    "hidden_size": "n_embd",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
    "rope_theta": "rotary_emb_base",
}

# Fields that follow from those above: n_embd / n_head, and plain rotary positions of base `rotary_emb_base`.
DERIVED = frozenset({"head_dim", "rope_parameters"})

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
