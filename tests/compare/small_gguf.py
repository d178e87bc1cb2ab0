"""Files of few bits that `ounce quantize` writes, in llama.cpp: does it read them, and write the same texts?

Not part of the test suite: it needs llama.cpp as the package xllamacpp (pip install xllamacpp). To repeat:

    cargo build --release && python tests/compare/small_gguf.py [--ounce target/release/ounce] MODEL TYPE…

MODEL is quantized to each TYPE (mxfp4, iq2_xs, tq2_0 …; a number is bits a weight by sensitivity); both programs then continue some
beginnings greedily. Prints a line for each file with the texts that are equal, and how many of their first words are. llama.cpp
rounds what is multiplied with the weights to 8 bits, as ounce's fast mode does but not in the same places, so that texts may part.
Exits 1 if llama.cpp can't read a file or no text begins alike.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import xllamacpp

BEGINNINGS = ["One day the cat", "Mia and Tom went to the", "The old man had a", "Once upon a time", "In the garden there was"]
TOKENS = 24


def llama_cpp(path):
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 256
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    ask = lambda text: server.handle_completions({"prompt": text, "max_tokens": TOKENS, "temperature": 0})
    return [ask(text)["choices"][0]["text"] for text in BEGINNINGS]


def ounce(program, path):
    run = lambda it: [program, "run", path, it, "--temperature", "0", "-n", str(TOKENS)]
    return [subprocess.run(run(it), capture_output=True, text=True, check=True).stdout.rstrip("\n") for it in BEGINNINGS]


def alike(a, b):
    """Words that both begin with."""
    pairs = list(zip(a.split(), b.split()))
    return next((at for at, (x, y) in enumerate(pairs) if x != y), len(pairs))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("types", nargs="+")
    parser.add_argument("--ounce", default="target/release/ounce")
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind in args.types:
            path = os.path.join(folder, "x.gguf")
            how = ["--bits-per-weight", kind] if kind[0].isdigit() else ["--type", kind]
            command = [args.ounce, "quantize", args.model, "-o", path, *how, "--no-test", "--force", "--calibration-tokens", "8192"]
            subprocess.run(command, capture_output=True, check=True)
            theirs, ours = llama_cpp(path), ounce(args.ounce, path)
            same = sum(a.strip() == b.strip() for a, b in zip(theirs, ours))
            words = [alike(a, b) for a, b in zip(theirs, ours)]
            failed |= max(words) == 0
            print(f"{kind}: {same} of {len(BEGINNINGS)} texts equal, {sum(words)} first words alike", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
