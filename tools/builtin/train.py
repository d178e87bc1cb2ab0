#!/usr/bin/env python3
"""Trains ounce's built-in model: a byte-level BPE tokenizer and a small Llama, on generated stories.

Goes in: text from the story generator. Comes out: an ordinary Hugging Face folder (bf16) in crates/lab/assets/builtin.

    pip install torch transformers tokenizers safetensors
    cargo build --release -p ounce-lab --example stories
    ./target/release/examples/stories --seed 1    --bytes 80000000 > train.txt
    ./target/release/examples/stories --seed 1001 --bytes 400000   > held-out.txt
    python tools/builtin/train.py --train train.txt --held-out held-out.txt --minutes 26

Seeds below 1000 are for training, the others are held out. The schedule follows the wall clock (warm-up, constant,
linear decay over the last quarter), so a slower machine trains on fewer tokens and still ends with a decayed rate.
A document stands between two <|endoftext|>, which is both the BOS and the EOS token. It is one text, or several with
blank lines between them, so that plain text with several stories is known, too.
"""

import argparse
import json
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

END = "<|endoftext|>"
CONTEXT = 512
BATCH_TOKENS = 2048
JOINED_SHARE = 0.15
RATE = 3e-3
WARMUP_STEPS = 100
DECAY_SHARE = 0.25
EXPORT_EVERY_SECONDS = 120


CARD = """\
---
license: mit
language: en
---
# ounce-tiny

The language model that is part of ounce: {parameters:,} parameters, an ordinary Llama (hidden size 128, 4 layers,
4 query and 2 key/value heads, feed-forward size 288, tied embeddings, rotary base 10000, 512 positions) with a
byte-level BPE tokenizer of 2,048 entries, stored in bf16. It exists so that every command and every test of ounce
can run without a download.

**What it can do.** Continue and write short children's tales, count, add small numbers in words, answer simple
questions about a tale. Its whole language is the grammar in `crates/lab/src/stories`; it knows nothing of the world
and its perplexity says nothing about other text.

**How to prompt it.** Every text begins with `<|endoftext|>`, which is both the BOS and the EOS token; the tokenizer
puts it there. A new text after a blank line is known, too.

**Data.** Text of the story generator, seed 1, 80 MB. Seeds below 1000 are for training, all others are held out.

**Training.** AdamW (rate 0.003), 100 steps of warm-up, constant, linear decay over the last quarter; batches of whole
documents, about 2,048 tokens; bf16 autocast over f32 weights; {steps:,} steps, {training_tokens:,} tokens in {minutes:g} minutes on
{cpu_threads} CPU thread(s), seed {seed}:

    cargo build --release -p ounce-lab --example stories
    ./target/release/examples/stories --seed 1    --bytes 80000000 > train.txt
    ./target/release/examples/stories --seed 1001 --bytes 400000   > held-out.txt
    python tools/builtin/train.py --train train.txt --held-out held-out.txt --minutes {minutes:g} --threads {cpu_threads}

The schedule follows the clock, so another machine gives other weights.

**Measured** on the stored bf16 weights, on {held_out_stories} held-out texts ({held_out_tokens:,} tokens, each text
alone after BOS): perplexity {held_out_perplexity:.4f} a token, {held_out_bits_per_byte:.4f} bits a byte.
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="text with stories separated by blank lines")
    parser.add_argument("--held-out", required=True, help="the same, from a held-out seed")
    parser.add_argument("--out", default="crates/lab/assets/builtin", help="folder that is written")
    parser.add_argument("--minutes", type=float, default=35.0, help="wall time of the training loop")
    parser.add_argument("--threads", type=int, default=1, help="more than one only helps on an otherwise idle machine")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def train_tokenizer(text, vocabulary=2048):
    """Byte-level BPE; every byte has a token, so any text can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text[:4_000_000].split("\n\n"), trainer)
    # The tokenizer itself puts BOS before a text, as Llama's does.
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, 0)]
    )
    return tokenizer


def encode(text, tokenizer, seed):
    """Token ids of the documents, each between two <|endoftext|> and cut to the context; see the header."""
    chance = random.Random(seed)
    documents = []
    for story in text.split("\n\n"):
        if documents and chance.random() < JOINED_SHARE:
            documents[-1] += "\n\n" + story
        else:
            documents.append(story)
    encoded = tokenizer.encode_batch(documents, add_special_tokens=False)
    return [np.array([0, *one.ids, 0][: CONTEXT + 1], dtype=np.int64) for one in encoded]


def batches(documents, generator):
    """Endless batches of about BATCH_TOKENS tokens, documents of like length together; [rows, longest], padded by -1.

    One document a row, so that no text sees another.
    """
    while True:
        order = generator.permutation(len(documents))
        for start in range(0, len(order), 2048):
            chunk = sorted((documents[at] for at in order[start : start + 2048]), key=len)
            groups, group = [], []
            for document in chunk:
                if group and (len(group) + 1) * len(document) > BATCH_TOKENS:
                    groups.append(group)
                    group = []
                group.append(document)
            for at in generator.permutation(len(groups)):
                rows = np.full((len(groups[at]), len(groups[at][-1])), -1)
                for row, document in zip(rows, groups[at]):
                    row[: len(document)] = document
                yield torch.from_numpy(rows)


def build(vocabulary):
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=288,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        attention_bias=False,
        mlp_bias=False,
        initializer_range=0.05,
    )
    config._attn_implementation = "sdpa"
    return LlamaForCausalLM(config)


def held_out_loss(model, stories, tokenizer):
    """Mean cross-entropy in nats per token, and per byte, of each story after BOS, with the BOS not predicted."""
    model.eval()
    nats, tokens, size = 0.0, 0, 0
    with torch.no_grad():
        for story in stories:
            ids = torch.tensor([tokenizer.encode(story).ids[:512]])
            logits = model(ids).logits[0, :-1].float()
            nats += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
            tokens += ids.shape[1] - 1
            size += len(story.encode())
    model.train()
    return nats / tokens, nats / size, tokens


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path + ".new", "w") as file:
        file.write(text)
    os.replace(path + ".new", path)


def export(model, tokenizer, folder, facts):
    """Writes the folder file by file, each under a temporary name first."""
    os.makedirs(folder, exist_ok=True)
    half = {name: value.detach().to(torch.bfloat16).clone() for name, value in model.state_dict().items()}
    half.pop("lm_head.weight", None)  # tied to the embedding
    path = os.path.join(folder, "model.safetensors")
    save_file(half, path + ".new", metadata={"format": "pt"})
    os.replace(path + ".new", path)
    path = os.path.join(folder, "tokenizer.json")
    tokenizer.save(path + ".new", pretty=False)
    os.replace(path + ".new", path)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dtype": "bfloat16",
        "eos_token_id": 0,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.05,
        "intermediate_size": 288,
        "max_position_embeddings": 512,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": tokenizer.get_vocab_size(),
    }
    os.chmod(os.path.join(folder, "model.safetensors"), 0o644)
    special = {"bos_token": END, "eos_token": END, "add_bos_token": True, "clean_up_tokenization_spaces": False}
    special |= {"model_max_length": 512, "tokenizer_class": "PreTrainedTokenizerFast"}
    generation = {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "temperature": 0.7, "max_length": 512}
    for name, value in [
        ("config.json", config),
        ("tokenizer_config.json", special),
        ("generation_config.json", generation),
    ]:
        write(folder, name, json.dumps(value, indent=2) + "\n")
    write(folder, "README.md", CARD.format(**facts) if facts else "Training has not finished.\n")


def rate_at(step, elapsed):
    """Share of the peak rate after a share `elapsed` of the time: warm-up by steps, constant, decay to 2 %."""
    rate = min(1.0, (step + 1) / WARMUP_STEPS)
    if elapsed > 1 - DECAY_SHARE:
        rate *= max(0.02, (1 - elapsed) / DECAY_SHARE)
    return rate


def main():
    options = arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    with open(options.train) as file:
        text = file.read()
    with open(options.held_out) as file:
        held_out = file.read().split("\n\n")[:300]
    tokenizer = train_tokenizer(text)
    documents = encode(text, tokenizer, options.seed)
    print(f"{len(text)} bytes, {sum(map(len, documents))} tokens", flush=True)

    model = build(tokenizer.get_vocab_size())
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters} parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.1)
    stream = batches(documents, np.random.default_rng(options.seed))
    start = exported = time.time()
    step, seen, smooth = 0, 0, math.log(2048)
    while True:
        elapsed = (time.time() - start) / (options.minutes * 60)
        if elapsed >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = RATE * rate_at(step, elapsed)
        batch = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            # Padding stands behind the text, where causal attention never looks back from.
            logits = model(batch[:, :-1].clamp(min=0), use_cache=False).logits.float()
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1), ignore_index=-1)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        seen += int((batch[:, 1:] >= 0).sum())
        smooth += 0.05 * (loss.item() - smooth)
        if step % 100 == 0:
            pace = seen / (time.time() - start)
            print(f"step {step} loss {smooth:.4f} {pace:.0f} tokens/s {elapsed:.1%}", flush=True)
        if time.time() - exported > EXPORT_EVERY_SECONDS:
            export(model, tokenizer, options.out, None)
            exported = time.time()

    # Measured on the weights as they are stored, rounded to bf16.
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    per_token, per_byte, counted = held_out_loss(model, held_out, tokenizer)
    facts = {
        "parameters": parameters,
        "steps": step,
        "training_tokens": seen,
        "minutes": options.minutes,
        "seed": options.seed,
        "cpu_threads": options.threads,
        "held_out_stories": len(held_out),
        "held_out_tokens": counted,
        "held_out_perplexity": math.exp(per_token),
        "held_out_bits_per_byte": per_byte / math.log(2),
    }
    export(model, tokenizer, options.out, facts)
    print(json.dumps(facts, indent=2), flush=True)


if __name__ == "__main__":
    main()
