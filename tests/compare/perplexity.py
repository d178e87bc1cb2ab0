"""Compares the perplexities that llama.cpp and ounce find for one text, on the same GGUF files.

Not part of the test suite: it needs llama.cpp's llama-perplexity, and NumPy. To repeat:

    cargo build --release && cargo build --release -p ounce-lab --example stories
    target/release/examples/stories --seed 1001 --bytes 100000 > tales.txt
    LLAMA_BIN=/path/to/llama.cpp/build/bin python tests/compare/perplexity.py tales.txt
    LLAMA_BIN=/path/to/llama.cpp/build/bin python tests/compare/perplexity.py tales.txt --files quantized.gguf …

llama-perplexity cuts a text into windows of `-c` tokens that do not overlap, begins each with the beginning-of-text
token in place of its first token, and scores the second half. `ounce eval` predicts every token once and has no such
windows, so the same ones are given to `ounce logits` as token ids, and the perplexity is taken from its logits.
llama-perplexity writes the ids it used, and they are compared with ounce's.

Prints a table in Markdown; exits 1 if ids differ, or for F32 weights the perplexities by more than 0.01 %.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

# llama.cpp rounds perplexities to four decimals, 0.003 % of the smallest here.
F32_LIMIT = 1e-4


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nfailed with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout + done.stderr


class Ounce:
    def __init__(self, program, model, work):
        self.program, self.model, self.npy = program, model, work / "logits.npy"

    def ids(self, text):
        """The whole text's ids, after the beginning-of-text token."""
        found = subprocess.run([self.program, "tokenize", self.model, "--json"], input=text, capture_output=True, text=True, check=True)
        return json.loads(found.stdout)["ids"]

    def perplexity(self, windows, mode, kv):
        """Of the second half of each window, llama.cpp's way."""
        total, count = 0.0, 0
        for window in windows:
            run(self.program, "logits", self.model, "--tokens", ",".join(map(str, window)), "--npy", self.npy, "--mode", mode,
                "--kv", kv, "--top", 0)
            logits = np.load(self.npy).astype(np.float64)
            first = len(window) // 2
            given, targets = logits[first:-1], np.array(window[first + 1 :])
            largest = given.max(axis=1)
            log_sum = largest + np.log(np.exp(given - largest[:, None]).sum(axis=1))
            total += (log_sum - given[np.arange(len(targets)), targets]).sum()
            count += len(targets)
        return float(np.exp(total / count))


def llama_cpp(program, model, text, context, chunks, kv, work):
    """llama.cpp's perplexity and the ids of its windows, before it puts the beginning-of-text token in each."""
    saved = work / "logits.bin"
    # Now and then it ends before its log is written; then it is asked again.
    for _attempt in range(40):
        out = run(program, "-m", model, "-f", text, "-c", context, "-b", context, "--chunks", chunks, "-t", os.cpu_count() or 1,
                  "-ctk", kv, "-ctv", kv, "--save-all-logits", saved)
        found = re.search(r"Final estimate: PPL = ([0-9.]+)", out)
        if found:
            break
    else:
        sys.exit(f"no perplexity in what {program} printed:\n{out[-3000:]}")
    with saved.open("rb") as file:
        assert file.read(8) == b"_logits_"
        size, _vocab, count = np.fromfile(file, np.int32, 3)
        ids = np.fromfile(file, np.int32, size * count).reshape(count, size)
    return float(found[1]), ids


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--ounce", default="target/release/ounce")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--types", default="f32,f16,bf16,q8_0,q5_0,q4_0")
    parser.add_argument("--files", nargs="*", type=pathlib.Path, default=[], help="GGUF files to compare as they are, in place of --model and --types")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--windows", type=int, default=40, help="at most")
    options = parser.parse_args()
    if "LLAMA_BIN" not in os.environ:
        sys.exit("LLAMA_BIN should name the folder of the llama.cpp programs")
    program = pathlib.Path(os.environ["LLAMA_BIN"], "llama-perplexity")
    text = options.text.read_text(encoding="utf-8")
    wrong = []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for dtype in [file.stem for file in options.files] or options.types.split(","):
            file = next((file for file in options.files if file.stem == dtype), work / f"{dtype}.gguf")
            if not options.files:
                run(options.ounce, "convert", options.model, file, "--dtype", dtype)
            ounce = Ounce(options.ounce, str(file), work)
            kv = "f32" if dtype == "f32" else "f16"
            theirs, windows = llama_cpp(program, file, options.text, options.context, options.windows, kv, work)
            ids = ounce.ids(text)
            if ids[: windows.size] != windows.flatten().tolist():
                wrong.append(f"{dtype}: the ids differ")
                continue
            # Every window begins as the text does.
            windows = [[ids[0], *map(int, window[1:])] for window in windows]
            fast = ounce.perplexity(windows, "fast", kv)
            reference = ounce.perplexity(windows, "reference", "f32")
            rows.append((dtype, kv, theirs, fast, reference))
            if dtype == "f32" and max(abs(fast / theirs - 1), abs(reference / theirs - 1)) > F32_LIMIT:
                wrong.append(f"{dtype}: the perplexities differ")
            last = f"{len(windows)} windows of {options.context} tokens"
    print(f"{options.text.name}, {last}:\n" if rows else "")
    print("| Weights | KV cache | llama.cpp | ounce, fast | ounce, reference | fast − reference | llama.cpp − reference |")
    print("|---|---|---|---|---|---|---|")
    for dtype, kv, theirs, fast, reference in rows:
        print(f"| {dtype.upper()} | {kv.upper()} | {theirs:.4f} | {fast:.4f} | {reference:.4f} | "
              f"{100 * (fast / reference - 1):+.3f} % | {100 * (theirs / reference - 1):+.3f} % |")
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
