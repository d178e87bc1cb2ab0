#!/usr/bin/env python3
"""Folders of cut, healed and sparse models in transformers: does it load what ounce writes, and predict the same?

Not part of the test suite: it needs torch and transformers. To repeat:

    cargo build --release && python tests/compare/cut_folders.py [--ounce target/release/ounce] [MODEL]

MODEL (the built-in one) is cut and written as a folder in every way that leaves layers of one shape, in F32; both programs then compute the
logits of the same tokens. Prints the largest difference as a share of the largest logit; exits 1 if one is above 1e-4.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy
import torch
from transformers import AutoModelForCausalLM

WAYS = {
    "heads and channels, 20 %, layers alike": ["--ratio", "0.2", "--uniform"],
    "channels, 40 %, layers alike": ["--ratio", "0.4", "--method", "channels", "--uniform"],
    "layers leave": ["--method", "layers", "--layers", "6"],
    "the stream, half": ["--method", "stream", "--ratio", "0.5"],
    "single weights, half (Wanda)": ["--method", "wanda", "--ratio", "0.5"],
    "single weights, 2 of 4 (SparseGPT)": ["--method", "sparsegpt", "--pattern", "2:4"],
}
TOKENS = [5, 300, 17, 1200, 44, 9, 800, 260, 31, 1999, 2, 77]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="builtin")
    parser.add_argument("--ounce", default="target/release/ounce")
    args = parser.parse_args()
    folder = tempfile.mkdtemp()
    run = lambda *command: subprocess.run([args.ounce, *command], check=True, capture_output=True, text=True)
    worst = 0.0
    for number, (name, flags) in enumerate(WAYS.items()):
        small, whole, out = (os.path.join(folder, f"{number}.{it}") for it in ("small", "f32", "npy"))
        run("prune", args.model, *flags, "-o", small, "--calibration-tokens", "8192", "--no-test")
        run("convert", small, whole, "--dtype", "f32")
        run("logits", whole, "--tokens", ",".join(map(str, TOKENS)), "--npy", out, "--mode", "reference")
        ours = numpy.load(out)
        model = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
        with torch.no_grad():
            theirs = model(torch.tensor([TOKENS])).logits[0].numpy()
        off = float(numpy.abs(ours.reshape(theirs.shape) - theirs).max() / numpy.abs(theirs).max())
        worst = max(worst, off)
        print(f"{name}: {sum(it.numel() for it in model.parameters())} parameters, off by {off:.1e}", flush=True)
    sys.exit(int(worst > 1e-4))


if __name__ == "__main__":
    main()
