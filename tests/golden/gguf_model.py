"""Makes the golden GGUF models in gguf_model/, and checks ounce's own GGUF files, both with llama.cpp.

    pip install "llama-cpp-python==0.3.36" "gguf==0.19.*" and what make.py asks for
    python tests/golden/gguf_model.py make
    python tests/golden/gguf_model.py stories --convert "CMD"    # needs a llama2.c checkpoint, see --help
    python tests/golden/gguf_model.py check --convert "CMD"      # CMD makes the F32 GGUF file {dst} of folder {src}

`make` writes tiny random models the way llama.cpp's converter does, without ounce: names from the gguf package,
values and layouts from transformers' weights by the rules below. Beside each FILE.gguf lies FILE.safetensors:

  input_ids  i32 [32]
  result     f32 [32, vocab] logits of llama.cpp (encoders: [32, hidden], last hidden states)

A file is refused if llama.cpp and transformers, which computes from the unconverted weights, disagree. `llama_q4_k`
comes from llama.cpp's own quantizer (Q4_K with Q6_K and replacements for short rows); because llama.cpp also rounds
activations, its result is transformers' with the weights as the gguf package unpacks them.

`check` converts every model of models/ with ounce and compares llama.cpp's result with transformers'. What GGUF or
llama.cpp can't express is changed in the model first, and the reason printed (EXPLAINED).
"""

import argparse
import ctypes
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp as ll
import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file

import make as golden
from cases import CASES

HERE = Path(__file__).parent
OUT = HERE / "gguf_model"
TOKENS = 32
EXACT, ROUNDED = 1e-4, 1e-2  # of the result's scale; llama.cpp takes GELU from a table in F16
SMALL = dict(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=False, pad_token_id=None)


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


# File, transformers' type, GGUF architecture, configuration.
MODELS = [
    ("llama", "llama", "LLAMA", dict(head_dim=8, rope_parameters=rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=48))),
    ("qwen2", "qwen2", "QWEN2", dict(tie_word_embeddings=True)),
    ("gemma3", "gemma3_text", "GEMMA3", dict(
        head_dim=8, query_pre_attn_scalar=8, sliding_window=8, tie_word_embeddings=True,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters=dict(sliding_attention=rope(theta=100.0), full_attention=rope("linear", factor=4.0)))),
    ("phi3", "phi3", "PHI3", dict(
        pad_token_id=0, original_max_position_embeddings=24, max_position_embeddings=96,
        rope_parameters=rope("longrope", short_factor=[1.0, 1.2], long_factor=[1.0, 3.5],
                             original_max_position_embeddings=24, partial_rotary_factor=1.0))),
    ("qwen3moe", "qwen3_moe", "QWEN3MOE", dict(
        head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, norm_topk_prob=True)),
    ("gptneox", "gpt_neox", "GPTNEOX", dict(rope_parameters=rope(partial_rotary_factor=0.5))),
    ("bert", "bert", "BERT", dict(max_position_embeddings=48)),
]
# Rows of a whole Q4_K block; quantized before it is kept.
WIDE = dict(hidden_size=256, head_dim=16, intermediate_size=64, num_hidden_layers=1)


@ll.llama_log_callback
def complain(level, text, _):
    if level == 4:
        print(text.decode().rstrip(), file=sys.stderr)


ll.llama_log_set(complain, ctypes.c_void_p(0))
ll.llama_backend_init()


class LlamaCpp:
    """A model in llama.cpp, computing in F32 with an F32 cache."""

    def __init__(self, path, encoder=False):
        self.model = ll.llama_model_load_from_file(str(path).encode(), ll.llama_model_default_params())
        if not self.model:
            raise ValueError("llama.cpp refuses the file")
        settings = ll.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch, settings.n_threads = 256, 256, 256, 2
        settings.type_k = settings.type_v = 0
        settings.flash_attn_type = 0
        settings.embeddings, settings.pooling_type = encoder, 0
        self.encoder, self.context = encoder, ll.llama_init_from_model(self.model, settings)
        self.vocab = ll.llama_model_get_vocab(self.model)

    def __call__(self, ids, start=0):
        """One row a token: logits, or an encoder's hidden states."""
        batch = ll.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = int(token), start + i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        assert ll.llama_decode(self.context, batch) == 0
        width = ll.llama_model_n_embd(self.model) if self.encoder else ll.llama_vocab_n_tokens(self.vocab)
        row = ll.llama_get_embeddings_ith if self.encoder else ll.llama_get_logits_ith
        return np.stack([np.ctypeslib.as_array(row(self.context, i), (width,)).copy() for i in range(len(ids))])

    def tokenize(self, text):
        ids = (ll.llama_token * 256)()
        count = ll.llama_tokenize(self.vocab, text.encode(), len(text.encode()), ids, 256, True, True)
        return list(ids[:count])


def differ(found, reference):
    return float(np.abs(found - reference).max() / np.sqrt((reference**2).mean()))


def interleave(tensor, heads):
    """Rows of each head reordered for rotation of neighbours, as the converter does for this architecture."""
    half = tensor.shape[0] // heads // 2
    return tensor.reshape(heads, 2, half, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def converted(kind, config, state):
    """Tensors in the converter's layout, still under transformers' names."""
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", None)
    for name, tensor in state.items():
        tensor = tensor.float()
        if kind == "llama" and "q_proj" in name:
            tensor = interleave(tensor, heads)
        elif kind == "llama" and "k_proj" in name:
            tensor = interleave(tensor, kv_heads)
        elif kind.startswith("gemma") and name.endswith("norm.weight"):
            tensor = tensor + 1
        elif "query_key_value" in name:
            tensor = tensor.reshape(heads, 3, -1, *tensor.shape[1:]).swapaxes(0, 1).reshape(tensor.shape)
        elif "mlp.experts.gate_up_proj" in name:
            gate, up = tensor.chunk(2, dim=1)
            yield name.replace("gate_up_proj", "gate_proj.weight"), gate
            yield name.replace("gate_up_proj", "up_proj.weight"), up
            continue
        elif "mlp.experts.down_proj" in name:
            name += ".weight"
        if "pooler" not in name:
            yield name, tensor


def add_keys(writer, kind, config):
    """Metadata as the converter writes it."""
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_vocab_size(config.vocab_size)
    if kv_heads := getattr(config, "num_key_value_heads", None):
        writer.add_head_count_kv(kv_heads)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(config.layer_norm_eps)
    if kind == "bert":
        writer.add_causal_attention(False)
        writer.add_token_type_count(config.type_vocab_size)
        writer.add_pooling_type(gguf.PoolingType.MEAN)
        return
    full = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(full["rope_theta"])
    writer.add_rope_dimension_count(int(full.get("partial_rotary_factor", 1.0) * head_dim))
    if full["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(full["factor"])
    if kind == "gemma3_text":
        writer.add_rope_freq_base_swa(config.rope_parameters["sliding_attention"]["rope_theta"])
        writer.add_sliding_window(config.sliding_window)
        writer.add_uint32("gemma3.attention.sliding_window_pattern", 2)
    if kind == "gpt_neox":
        writer.add_parallel_residual(config.use_parallel_residual)
    if kind == "qwen3_moe":
        writer.add_expert_count(config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if full["rope_type"] == "longrope":
        original, longest = full["original_max_position_embeddings"], config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(longest / original) / np.log(original))))
        writer.add_sliding_window(0)
        for length in ("long", "short"):
            writer.add_tensor(f"rope_factors_{length}.weight", np.array(full[f"{length}_factor"], np.float32))
    if full["rope_type"] == "llama3":
        waves = 2 * np.pi * full["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
        turns, low, high = full["original_max_position_embeddings"] / waves, full["low_freq_factor"], full["high_freq_factor"]
        blend = np.clip((turns - low) / (high - low), 0, 1)
        writer.add_tensor("rope_freqs.weight", (1 / ((1 - blend) / full["factor"] + blend)).astype(np.float32))


def random_model(kind, changes):
    """A model and ids to run it on."""
    config = {**SMALL, **changes}
    if kind in ("gpt_neox", "bert"):
        config.pop("num_key_value_heads")
    config = transformers.AutoConfig.for_model(kind, **config)
    auto = transformers.AutoModel if kind == "bert" else transformers.AutoModelForCausalLM
    generator = torch.Generator().manual_seed(7)
    model = auto.from_config(config, attn_implementation="eager").float().eval()
    golden.fill(model, generator)
    if kind == "qwen3_moe":
        model.set_experts_implementation("eager")
    return model, torch.randint(3, config.vocab_size, (TOKENS,), generator=generator)


def computed(model, ids):
    with torch.no_grad():
        out = model(ids[None])
    return (out.logits if "logits" in out else out.last_hidden_state)[0].numpy()


def names_of(arch, model):
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch], model.config.num_hidden_layers)
    return lambda name: table.get_name(name, try_suffixes=(".weight", ".bias"))


def write_file(file, kind, arch, model):
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[arch]])
    add_keys(writer, kind, model.config)
    writer.add_tokenizer_model("none")
    for source, tensor in converted(kind, model.config, model.state_dict()):
        if not (source == "lm_head.weight" and model.config.tie_word_embeddings):
            writer.add_tensor(names_of(arch, model)(source), tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_result(file, ids, result, found, tolerance):
    if not found < tolerance:
        raise SystemExit(f"{file.name}: llama.cpp and transformers differ by {found:.1e}")
    golden_file = file.with_suffix(".safetensors")
    save_file({"input_ids": ids.numpy().astype(np.int32), "result": result}, golden_file)
    golden_file.chmod(0o644)
    print(f"{file.name:20} {file.stat().st_size:7} bytes, llama.cpp and transformers differ by {found:.1e}")


def make_plain(name, kind, arch, changes):
    """A file in F32 and llama.cpp's result."""
    model, ids = random_model(kind, changes)
    file = OUT / f"{name}.gguf"
    write_file(file, kind, arch, model)
    result = LlamaCpp(file, kind == "bert")(ids)
    tolerance = ROUNDED if kind in ("bert", "gpt_neox", "gemma3_text") else EXACT
    write_result(file, ids, result, differ(result, computed(model, ids)), tolerance)


def make_quantized():
    """A file from llama.cpp's quantizer and transformers' result with the unpacked weights."""
    model, ids = random_model("llama", WIDE)
    file = OUT / "llama_q4_k.gguf"
    settings = ll.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = 15, 2  # Q4_K_M
    with tempfile.TemporaryDirectory() as folder:
        wide = Path(folder) / "wide.gguf"
        write_file(wide, "llama", "LLAMA", model)
        assert ll.llama_model_quantize(str(wide).encode(), str(file).encode(), ctypes.byref(settings)) == 0
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    print("types:", sorted({tensor.tensor_type.name for tensor in stored.values()}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = stored[names_of("LLAMA", model)(name)]
            values = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type).copy())
            if "q_proj" in name or "k_proj" in name:
                heads = model.config.num_attention_heads if "q_proj" in name else model.config.num_key_value_heads
                values = values.reshape(heads, -1, 2, values.shape[-1]).swapaxes(1, 2)
            parameter.copy_(values.reshape(parameter.shape))
    result = computed(model, ids)
    write_result(file, ids, result, differ(LlamaCpp(file)(ids), result), 0.2)


def make_all():
    OUT.mkdir(exist_ok=True)
    for model in MODELS:
        make_plain(*model)
    make_quantized()


def run(command, source, target):
    words = [word.format(src=source, dst=target) for word in shlex.split(command)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def stories(command, checkpoint):
    """Greedy text of a converted checkpoint, by llama.cpp."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stories.gguf"
        run(command, checkpoint, file)
        model, prompt = LlamaCpp(file), "Once upon a time, Lily"
        ids = model.tokenize(prompt)
        text, logits = list(ids), model(ids)
        while len(text) < 120:
            text.append(int(logits[-1].argmax()))
            logits = model(text[-1:], len(text) - 1)
    (OUT / "stories260K.json").write_text(json.dumps({"prompt": prompt, "prompt_ids": ids, "ids": text}) + "\n")


NO_WINDOWS = "llama.cpp knows no windows for this architecture"
# What has to be changed in a model before llama.cpp can agree, and why.
EXPLAINED = {
    "gemma2": (dict(query_pre_attn_scalar=16), "GGUF has no key for the score's scale"),
    "gemma3": (dict(query_pre_attn_scalar=16), "GGUF has no key for the score's scale"),
    "bert_model": (dict(hidden_act="gelu"), "GGUF has no key for the nonlinearity"),
    "gpt_neox_sequential": (dict(hidden_act="gelu"), "GGUF has no key for the nonlinearity"),
    "llama_rope_dynamic": (dict(rope_parameters=rope()), "GGUF has no key for scaling by length"),
    "llama_rope_yarn_options": (dict(rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=32, mscale=1.4, mscale_all_dim=0.5)),
        "llama.cpp does not read the ramp's ends, and GGUF has no key for one that is not rounded"),
    "smollm3": (dict(no_rope_layers=[1, 1, 1, 0]), "GGUF has no key for the layers without rotation"),
    "mistral": (dict(sliding_window=None), NO_WINDOWS),
    "mixtral_fused": (dict(sliding_window=None), NO_WINDOWS),
    "phi3": (dict(sliding_window=None), NO_WINDOWS),
    "qwen2_window": (dict(use_sliding_window=False, layer_types=["full_attention"] * 3), NO_WINDOWS),
    "phi3_longrope_short": (dict(original_max_position_embeddings=300, max_position_embeddings=1200),
                            "llama.cpp takes the long factors by its context, which is at least 256"),
    "qwen3_moe_fused": (dict(norm_topk_prob=True), "llama.cpp always normalises this architecture's experts"),
    "qwen2_moe_sparse_step": (None, "llama.cpp wants experts in every layer"),
    "qwen3_moe": (None, "llama.cpp wants experts in every layer"),
}


def check_one(case, command, folder):
    """The difference and what was changed; none where llama.cpp refuses."""
    source, file = folder / case.name, folder / f"{case.name}.gguf"
    source.mkdir()
    original = HERE / "models" / case.name
    changes, reason = EXPLAINED.get(case.name, ({}, ""))
    for entry in original.iterdir():
        if entry.name != "config.json":
            (source / entry.name).symlink_to(entry.resolve())
    config = json.loads((original / "config.json").read_text()) | (changes or {})
    (source / "config.json").write_text(json.dumps(config))
    run(command, source, file)
    encoder = "bert" in case.kind
    if changes is None:
        return None, reason
    # llama.cpp gives every token the first type.
    inputs = {"input_ids": golden.inputs_of(case, config["vocab_size"])["input_ids"]}
    tensors = golden.results(golden.load(case, original, changes), inputs)
    expected = tensors["last_hidden_state" if encoder else "logits"].numpy()
    return differ(LlamaCpp(file, encoder)(inputs["input_ids"][0].tolist()), expected), reason


def check_all(command, names):
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if names and case.name not in names:
                continue
            found, reason = check_one(case, command, Path(folder))
            rounded = any(word in case.kind for word in ("bert", "gpt", "gemma"))
            if found is not None and not found < (ROUNDED if rounded else EXACT):
                failed.append(case.name)
            print(f"{case.name:26} {'refused' if found is None else format(found, '.1e'):8} {reason}")
    if failed:
        raise SystemExit(f"these differ: {', '.join(failed)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["make", "stories", "check"])
    parser.add_argument("names", nargs="*", help="check: only these models; stories: the llama2.c checkpoint")
    parser.add_argument("--convert", default="ounce convert {src} {dst} --dtype f32", help="command with {src} and {dst}")
    options = parser.parse_args()
    if options.step == "make":
        make_all()
    elif options.step == "stories":
        stories(options.convert, options.names[0])
    else:
        check_all(options.convert, options.names)
