"""The table of tiny models: one `Case` per folder under `models/`.

A case says which transformers classes to build, with which configuration, and which single configuration changes
must visibly move the result (`sensitive`): a window, a scaling kind or a soft cap that could be ignored without
anyone noticing would make the golden file worthless. Numbers are small and deliberately awkward: heads times head
size differs from the hidden size, key/value heads are fewer than heads, the context of 64 is longer than windows.

`hub_config` rewrites a configuration as transformers 5 saves it into the keys that checkpoints published before it
carry (`rope_theta`, `rope_scaling`, `torch_dtype`, ...); both forms are stored and must mean the same model.
"""

from dataclasses import dataclass, field

CONTEXT = 64

# Shared by all decoders; a case overrides what its family needs.
DECODER = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
               num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None,
               tie_word_embeddings=False)
ENCODER = dict(vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
               max_position_embeddings=80)
MOE = dict(num_experts_per_tok=2, moe_intermediate_size=16)


@dataclass
class Case:
    name: str
    kind: str  # model_type of the configuration class
    config: dict
    model: str = "AutoModelForCausalLM"  # class that is saved
    load: str = ""  # class that computes the reference; same as `model` when empty
    dtype: str = "bfloat16"  # on disk; the reference always computes in float32 from exactly these values
    save: dict = field(default_factory=dict)  # further arguments of save_pretrained
    drop: tuple = ()  # configuration keys left out of config.json, as many published checkpoints leave them out
    rewrite: str = ""  # name of a function in make.py that brings the folder to a published layout
    token_types: bool = False
    pooling: str = ""  # "mean" or "cls": wrap as a sentence-transformers folder
    prompts: dict = field(default_factory=dict)
    sensitive: list = field(default_factory=list)  # configuration changes that must change the result
    inert: tuple = ()  # name endings of tensors that can't influence the result, for a reason given beside them
    seed: int = 0


def decoder(name, kind, case=None, **config):
    merged = {**DECODER, **config}
    if kind == "gpt_neox":  # has as many key/value heads as heads, and no key for it
        del merged["num_key_value_heads"]
    return Case(name, kind, merged, **(case or {}))


def encoder(name, kind, case=None, **config):
    return Case(name, kind, {**ENCODER, **config}, **(case or {}))


def rope(kind, theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


PLAIN = dict(rope_parameters=rope("default"))
# Without RoPE a bias on keys adds the same number to every score of a query, which softmax cancels.
KEY_BIAS = ("key.bias", "k_lin.bias")

LLAMA = [
    decoder("llama", "llama", dict(dtype="float32", sensitive=[PLAIN]), head_dim=16, rope_parameters=rope("default", 500.0)),
    # Llama 1 and 2 checkpoints carry none of these keys: they follow from the others.
    decoder("llama_legacy", "llama", dict(drop=("head_dim", "num_key_value_heads", "rope_parameters", "attention_bias",
            "mlp_bias", "pretraining_tp")), num_key_value_heads=4),
    decoder("llama_tied", "llama", dict(dtype="float16"), vocab_size=113, head_dim=12, tie_word_embeddings=True,
            rms_norm_eps=1e-3),
    decoder("llama_bias", "llama", head_dim=16, attention_bias=True, mlp_bias=True, num_key_value_heads=1),
    decoder("llama_sharded", "llama", dict(save=dict(max_shard_size="20KB")), head_dim=16, num_hidden_layers=3),
    decoder("llama_rope_llama3", "llama", dict(sensitive=[PLAIN]), head_dim=16,
            rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                 original_max_position_embeddings=48)),
    decoder("llama_rope_linear", "llama", dict(sensitive=[PLAIN]), head_dim=16, rope_parameters=rope("linear", factor=4.0)),
    # Longer than max_position_embeddings, so that the base grows with the length.
    decoder("llama_rope_dynamic", "llama", dict(sensitive=[PLAIN]), head_dim=16, max_position_embeddings=24,
            rope_parameters=rope("dynamic", factor=2.0)),
    decoder("llama_rope_yarn", "llama", dict(sensitive=[PLAIN, dict(rope_parameters=rope(
            "yarn", factor=4.0, original_max_position_embeddings=32, attention_factor=1.0))]), head_dim=16,
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    decoder("llama_rope_yarn_options", "llama", dict(sensitive=[PLAIN]), head_dim=16,
            rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=8.0, beta_slow=0.5,
                                 mscale=1.4, mscale_all_dim=0.5, truncate=False)),
]
DENSE = [
    decoder("mistral", "mistral", dict(sensitive=[dict(sliding_window=None), dict(sliding_window=17)]), head_dim=16,
            sliding_window=16),
    decoder("qwen2", "qwen2", tie_word_embeddings=True, rope_parameters=rope("default", 1000000.0)),
    decoder("qwen2_window", "qwen2", dict(sensitive=[dict(use_sliding_window=False, layer_types=["full_attention"] * 3)]),
            use_sliding_window=True, sliding_window=16, max_window_layers=1, num_hidden_layers=3),
    decoder("qwen3", "qwen3", head_dim=16, tie_word_embeddings=True, rope_parameters=rope("default", 1000000.0)),
    decoder("gemma2", "gemma2", dict(sensitive=[dict(attn_logit_softcapping=None), dict(final_logit_softcapping=None),
            dict(query_pre_attn_scalar=16), dict(sliding_window=17), dict(layer_types=["sliding_attention"] * 4)]),
            head_dim=16, num_hidden_layers=4, intermediate_size=40, sliding_window=16, query_pre_attn_scalar=24,
            attn_logit_softcapping=4.0, final_logit_softcapping=6.0, tie_word_embeddings=True),
    decoder("gemma3", "gemma3_text", dict(sensitive=[dict(query_pre_attn_scalar=16), dict(sliding_window=17),
            dict(rope_parameters=dict(sliding_attention=rope("default", 100.0), full_attention=rope("default", 10000.0))),
            dict(rope_parameters=dict(sliding_attention=rope("default", 10000.0),
                                      full_attention=rope("linear", 10000.0, factor=4.0)))]),
            head_dim=16, num_hidden_layers=4, intermediate_size=40, sliding_window=16, query_pre_attn_scalar=24,
            tie_word_embeddings=True, layer_types=["sliding_attention", "sliding_attention", "full_attention"] +
            ["sliding_attention"], rope_parameters=dict(sliding_attention=rope("default", 100.0),
                                                        full_attention=rope("linear", 10000.0, factor=4.0))),
    decoder("phi3", "phi3", dict(sensitive=[dict(sliding_window=None)]), hidden_size=48, pad_token_id=0,
            sliding_window=16, original_max_position_embeddings=128),
    decoder("phi3_longrope_long", "phi3", dict(sensitive=[PLAIN]), hidden_size=32, num_key_value_heads=4,
            pad_token_id=0, original_max_position_embeddings=48, max_position_embeddings=96,
            rope_parameters=rope("longrope", short_factor=[1.0, 1.1, 1.2, 1.3], long_factor=[1.0, 2.0, 3.5, 5.0],
                                 original_max_position_embeddings=48, partial_rotary_factor=1.0)),
    decoder("phi3_longrope_short", "phi3", dict(sensitive=[PLAIN]), hidden_size=64, pad_token_id=0,
            original_max_position_embeddings=80, max_position_embeddings=320, intermediate_size=40,
            tie_word_embeddings=True,
            rope_parameters=rope("longrope", short_factor=[1.0, 1.2, 1.4, 1.7, 2.0, 2.5],
                                 long_factor=[1.0, 2.0, 3.5, 5.0, 7.0, 9.0], original_max_position_embeddings=80,
                                 partial_rotary_factor=0.75)),
    Case("gpt2", "gpt2", dict(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=80, bos_token_id=1,
         eos_token_id=1), sensitive=[dict(activation_function="gelu")]),
    # The layout of the published checkpoint: no `transformer.` prefix, causal masks stored beside the weights.
    Case("gpt2_hub", "gpt2", dict(vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=40,
         bos_token_id=1, eos_token_id=1), rewrite="gpt2_hub_files"),
    decoder("gpt_neox", "gpt_neox", dict(sensitive=[dict(use_parallel_residual=False)]), hidden_size=48,
            rope_parameters=rope("default", partial_rotary_factor=0.5)),
    decoder("gpt_neox_sequential", "gpt_neox", dict(sensitive=[dict(use_parallel_residual=True)]), hidden_size=32,
            rope_parameters=rope("default", partial_rotary_factor=0.25), use_parallel_residual=False,
            hidden_act="gelu_new"),
    decoder("smollm3", "smollm3", dict(sensitive=[dict(no_rope_layers=[1, 1, 1, 1])]), num_hidden_layers=4,
            intermediate_size=40, no_rope_layer_interval=2, rope_parameters=rope("default", 5000.0),
            tie_word_embeddings=True),
    decoder("granite", "granite", dict(sensitive=[dict(embedding_multiplier=1.0), dict(attention_multiplier=0.25),
            dict(residual_multiplier=1.0), dict(logits_scaling=1.0)]), head_dim=16, embedding_multiplier=1.5,
            attention_multiplier=0.4, residual_multiplier=0.6, logits_scaling=2.0, tie_word_embeddings=True),
    decoder("olmo2", "olmo2", rope_parameters=rope("default", 500000.0)),
    decoder("stablelm", "stablelm", dict(sensitive=[dict(use_parallel_residual=True)]), hidden_size=48,
            rope_parameters=rope("default", partial_rotary_factor=0.5), use_qkv_bias=True),
    decoder("stablelm_parallel", "stablelm", hidden_size=32, rope_parameters=rope("default", partial_rotary_factor=0.25),
            use_parallel_residual=True, qk_layernorm=True),
]
EXPERTS = [
    decoder("mixtral", "mixtral", dict(), head_dim=16, intermediate_size=16, num_local_experts=6, num_experts_per_tok=2),
    decoder("mixtral_fused", "mixtral", dict(save=dict(save_original_format=False)), head_dim=12, intermediate_size=16,
            num_local_experts=4, num_experts_per_tok=2, sliding_window=16),
    decoder("qwen2_moe", "qwen2_moe", dict(sensitive=[dict(norm_topk_prob=True)]), num_experts=6,
            shared_expert_intermediate_size=24, norm_topk_prob=False, **MOE),
    decoder("qwen2_moe_sparse_step", "qwen2_moe", dict(), num_experts=6, shared_expert_intermediate_size=24,
            norm_topk_prob=True, decoder_sparse_step=2, num_hidden_layers=3, mlp_only_layers=[0], **MOE),
    decoder("qwen3_moe", "qwen3_moe", dict(sensitive=[dict(norm_topk_prob=False)]), head_dim=16, num_experts=6,
            norm_topk_prob=True, mlp_only_layers=[1], num_hidden_layers=3, **{**MOE, "num_experts_per_tok": 3}),
    decoder("qwen3_moe_fused", "qwen3_moe", dict(save=dict(save_original_format=False)), head_dim=16, num_experts=4,
            norm_topk_prob=False, **MOE),
]
MASKED = dict(model="AutoModelForMaskedLM", inert=KEY_BIAS)
PLAIN_ENCODER = dict(model="AutoModel", inert=KEY_BIAS)
# Never computed from by `last_hidden_state` alone.
POOLER = ("pooler.dense.weight", "pooler.dense.bias")
SENTENCE = dict(model="BertModel", inert=KEY_BIAS + POOLER)
ENCODERS = [
    encoder("bert_mlm", "bert", {**MASKED, "token_types": True}),
    # The layout of the published checkpoint: gamma/beta, next-sentence head, position ids.
    encoder("bert_hub", "bert", {**MASKED, "token_types": True, "rewrite": "bert_hub_files", "dtype": "float16"}),
    encoder("bert_model", "bert", {**PLAIN_ENCODER, "token_types": True, "inert": KEY_BIAS + POOLER},
            layer_norm_eps=1e-5, hidden_act="relu"),
    encoder("roberta_mlm", "roberta", MASKED, type_vocab_size=1, layer_norm_eps=1e-5),
    Case("distilbert_mlm", "distilbert", dict(vocab_size=96, dim=32, hidden_dim=48, n_layers=2, n_heads=4,
         max_position_embeddings=80), dtype="float16", **MASKED),
    # The first of two groups of layers is used twice.
    encoder("albert_mlm", "albert", {**MASKED, "token_types": True, "sensitive": [dict(num_hidden_layers=2)]},
            embedding_size=20, num_hidden_layers=3, num_hidden_groups=2),
    # A group of two layers, run through twice.
    encoder("albert_model", "albert", {**PLAIN_ENCODER, "token_types": True, "sensitive": [dict(num_hidden_layers=1)],
            "inert": KEY_BIAS + ("pooler.weight", "pooler.bias")}, embedding_size=32, num_hidden_layers=2,
            num_hidden_groups=1, inner_group_num=2, hidden_act="gelu"),
    encoder("minilm", "bert", {**SENTENCE, "pooling": "mean", "dtype": "float32", "rewrite": "sentence_hub_files"}),
    encoder("bge", "bert", {**SENTENCE, "pooling": "cls", "drop": ("position_embedding_type",)}),
    encoder("e5", "bert", {**SENTENCE, "pooling": "mean", "prompts": {"query": "query: ", "document": "passage: "}},
            vocab_size=101),
]
CASES = LLAMA + DENSE + EXPERTS + ENCODERS


def hub_config(config):
    """Rewrites a configuration saved by transformers 5 with the keys of checkpoints published before it."""
    old = dict(config)
    old["torch_dtype"] = old.pop("dtype", "float32")
    old["transformers_version"] = "4.40.0"
    parameters = old.pop("rope_parameters", None)
    if old["model_type"] == "qwen3_moe":
        old["num_experts"] = old.pop("num_local_experts")
    old.pop("_sliding_window_pattern", None)
    if parameters is not None and old["model_type"] == "gemma3_text":
        old["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
        old["sliding_window_pattern"] = old.pop("layer_types").index("full_attention") + 1
    if parameters is not None:
        parameters = dict(parameters)
        neox = old["model_type"] == "gpt_neox"
        old["rotary_emb_base" if neox else "rope_theta"] = parameters.pop("rope_theta")
        partial = parameters.pop("partial_rotary_factor", None)
        if partial is not None:
            old["rotary_pct" if neox else "partial_rotary_factor"] = partial
        kind = parameters.pop("rope_type")
        if kind == "longrope":  # its original length stands beside it, not in it
            parameters.pop("original_max_position_embeddings")
        spelling = "type" if kind in ("linear", "dynamic", "longrope") and "gemma" not in old["model_type"] else "rope_type"
        old["rope_scaling"] = None if kind == "default" else {spelling: kind, **parameters}
    if old["model_type"] in ("qwen2", "gemma2", "qwen2_moe", "smollm3"):
        old.pop("layer_types", None)  # follows from the family's rule
    if old["model_type"] == "qwen2_moe" and not old["use_sliding_window"]:
        old["sliding_window"] = 4096  # present in published files, switched off by use_sliding_window
    return old
