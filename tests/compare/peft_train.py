"""LoRA and QLoRA beside Python's peft: memory and speed of training, in turns.

    cargo build --release
    python tests/compare/peft_train.py [--ounce target/release/ounce] [--shape 1b] [--turns 2] [--steps 4]

Makes a Llama of a published shape with random weights in bf16 (speed and memory do not depend on values), and lets both train LoRA of rank 8 on all
linear layers, one text of --context tokens a step, AdamW, two threads: ounce tune on the folder, and on a Q4_0 file made of it; peft on the model in
bf16, with and without gradient checkpointing, and on bitsandbytes' NF4. Every run is a process of its own. Prints the most memory (of
the whole process) and tokens a second of the fastest step, and the ratios. Needs torch, transformers, peft and bitsandbytes; a tokenizer.json to
put into the folder (--tokenizer).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

SHAPES = {
    "1b": dict(hidden_size=2048, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, intermediate_size=8192, vocab_size=128256, head_dim=64),
    "135m": dict(hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, intermediate_size=1536, vocab_size=50304, head_dim=64),
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def make(folder, shape, tokenizer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    config = LlamaConfig(**SHAPES[shape], tie_word_embeddings=True, max_position_embeddings=4096)
    LlamaForCausalLM(config).save_pretrained(folder)
    with open(tokenizer, "rb") as source, open(os.path.join(folder, "tokenizer.json"), "wb") as target:
        target.write(source.read())


def peer(args):
    """One run of peft, in this process."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    four = args.way == "nf4"
    more = {}
    if four:
        more["quantization_config"] = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.bfloat16, **more)
    model.config.use_cache = False
    checkpointing = args.way == "bf16+checkpointing"
    if four:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    elif checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM"))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)
    ids = torch.randint(0, 50000, (args.steps, 1, args.context))
    seconds = []
    for batch in ids:
        start = time.perf_counter()
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "seconds": seconds}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ounce", default="target/release/ounce")
    parser.add_argument("--shape", default="1b", choices=SHAPES)
    parser.add_argument("--tokenizer", default="tokenizer.json")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", help="where the models are kept")
    parser.add_argument("--only", default="", help="ways whose names contain one of these, with | between")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.way:
        return peer(args)
    kept = args.work or tempfile.mkdtemp()
    folder = os.path.join(kept, args.shape)
    if not os.path.isdir(folder):
        make(folder, args.shape, args.tokenizer)
    small = folder + ".gguf"
    if not os.path.exists(small):
        subprocess.run([args.ounce, "convert", folder, small, "--dtype", "q4_0"], check=True, stderr=subprocess.DEVNULL)
    text = os.path.join(kept, "text.txt")
    with open(text, "w") as file:
        file.writelines(f"the cat {n} sat on mat {7 * n} and sang\n" for n in range(200 * args.steps))

    def measured(command):
        """Output and the most memory of a process."""
        ran = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = ran.communicate()
        if ran.returncode:
            raise SystemExit(f"{command}: {ran.returncode}: {err[-800:]}")
        return out

    def ours(model, more):
        target = tempfile.mkdtemp(dir=kept)
        command = ["tune", model, "--data", text, "-o", f"{target}/a", "--steps", args.steps, "--context", args.context, "--batch", 1]
        command += ["--held-out", 0, "--threads", args.threads, "--rank", 8, "--targets", "all", "--json", *more]
        report = json.loads(measured([args.ounce, *map(str, command)]))
        with open(f"{target}/a/training/log.jsonl") as log:
            steps = [json.loads(line) for line in log]
        steps = [it for it in steps if it["event"] == "step"]
        return report["peak_bytes"], min(it["seconds"] / (it["tokens"] - before) for it, before in zip(steps, [0] + [it["tokens"] for it in steps]))

    def theirs(way):
        command = [sys.executable, __file__, "--way", way, "--folder", folder, "--shape", args.shape]
        command += ["--steps", args.steps, "--context", args.context, "--threads", args.threads]
        report = json.loads(measured([*map(str, command)]).splitlines()[-1])
        return report["peak"], min(report["seconds"]) / args.context

    ways = {
        "peft bf16": lambda: theirs("bf16"),
        "ounce bf16": lambda: ours(folder, []),
        "peft bf16, checkpointing": lambda: theirs("bf16+checkpointing"),
        "ounce bf16, checkpointing": lambda: ours(folder, ["--checkpointing"]),
        "peft NF4": lambda: theirs("nf4"),
        "ounce Q4_0": lambda: ours(small, []),
        "ounce Q4_0, checkpointing": lambda: ours(small, ["--checkpointing"]),
    }
    ways = {name: run for name, run in ways.items() if not args.only or any(part in name for part in args.only.split("|"))}
    found = {name: [] for name in ways}
    for turn in range(args.turns):
        for name, run in ways.items():
            peak, per_token = run()
            found[name].append((peak, 1 / per_token))
            print(f"turn {turn + 1}: {name}: {peak / 2**20:.0f} MiB, {1 / per_token:.1f} tokens/s", flush=True)
    best = {name: (min(it[0] for it in runs), max(it[1] for it in runs)) for name, runs in found.items()}
    for ours_name, their_name in [
        ("ounce bf16", "peft bf16"),
        ("ounce bf16, checkpointing", "peft bf16, checkpointing"),
        ("ounce Q4_0", "peft NF4"),
        ("ounce Q4_0", "peft bf16"),
        ("ounce Q4_0, checkpointing", "peft NF4"),
    ]:
        if ours_name in best and their_name in best:
            a, b = best[ours_name], best[their_name]
            speeds = [x[1] / y[1] for x, y in zip(found[ours_name], found[their_name])]
            print(f"{ours_name} / {their_name}: memory {a[0] / b[0]:.2f}, tokens/s {a[1] / b[1]:.2f} (turns {', '.join(f'{it:.2f}' for it in speeds)})")


if __name__ == "__main__":
    main()
