"""Compares tokenizers with llama.cpp: writes a vocabulary-only GGUF file with the gguf package, loads it with
llama-cpp-python and counts the lines for which the ids differ. Used by tokenizer.py --llama-cpp."""

import json

import gguf
import llama_cpp

PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2"}


def vocabulary(path, model, pre, tokens, types, scores=None, merges=None, ids=(), flags=()):
    """Writes a GGUF file that holds nothing but a vocabulary."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_vocab_size(len(tokens))
    for key, value in [("context_length", 64), ("embedding_length", 8), ("block_count", 1), ("feed_forward_length", 8)]:
        writer.add_uint32(f"llama.{key}", value)
    writer.add_uint32("llama.attention.head_count", 1)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model(model)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if scores:
        writer.add_token_scores(scores)
    if merges:
        writer.add_token_merges(merges)
    for key, value in ids:
        writer.add_uint32(f"tokenizer.ggml.{key}_token_id", value)
    for key, value in flags:
        writer.add_bool(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def load(path):
    return llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)


def compare(name, tokenizer, lines, folder):
    path = folder / f"{name}.gguf"
    model = json.loads(tokenizer.to_str())["model"]
    count = tokenizer.get_vocab_size()
    tokens = [tokenizer.id_to_token(i) for i in range(count)]
    added = tokenizer.get_added_tokens_decoder()
    types = [1 if i not in added else 3 if added[i].special else 4 for i in range(count)]
    one = lambda token: tokenizer.token_to_id(token)
    if name in PRE:
        ids = [("bos", one("<|begin_of_text|>"))] if name == "llama3" else [("eos", one("<|endoftext|>"))]
        flags = [("add_bos_token", name == "llama3")]
        vocabulary(path, "gpt2", PRE[name], tokens, types, merges=[" ".join(m) for m in model["merges"]], ids=ids,
                   flags=flags)
    elif name == "llama":
        types = [6 if token.startswith("<0x") else 2 if token == "<unk>" else kind for token, kind in zip(tokens, types)]
        rank = {}
        for i, (left, right) in enumerate(model["merges"]):
            rank.setdefault(left + right, -float(i))
        vocabulary(path, "llama", "default", tokens, types, scores=[rank.get(t, -1e6) for t in tokens],
                   ids=[("bos", 1), ("eos", 2), ("unknown", 0)], flags=[("add_bos_token", True), ("add_space_prefix", True)])
    elif name == "t5":
        types[0] = 2
        vocabulary(path, "t5", None, tokens, types, scores=[score for _, score in model["vocab"]],
                   ids=[("bos", 1), ("eos", 2), ("unknown", 0)],
                   flags=[("add_bos_token", False), ("add_eos_token", True), ("add_space_prefix", True),
                          ("remove_extra_whitespaces", True)])
    else:
        brackets = lambda t: t.startswith("[") and t.endswith("]")
        tokens = [t if brackets(t) else t[2:] if t.startswith("##") else "▁" + t for t in tokens]
        vocabulary(path, "bert", None, tokens, types, ids=[("bos", 2), ("cls", 2), ("seperator", 3), ("unknown", 1),
                                                           ("padding", 0), ("mask", 4)],
                   flags=[("normalizer.lowercase", name == "bert-uncased")])
    llama = load(path)
    ours = [tokenizer.encode(line).ids for line in lines]
    theirs = [llama.tokenize(line.encode(), add_bos=True, special=True) for line in lines]
    different = [i for i in range(len(lines)) if ours[i] != theirs[i]]
    print(f"{name}: tokenizers and llama.cpp differ on {len(different)} lines")
    for i in different[:8]:
        print("   ", repr(lines[i]), ours[i][:14], theirs[i][:14])
