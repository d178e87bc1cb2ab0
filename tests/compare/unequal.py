"""Files with layers of unequal shape, in llama.cpp: does it read what `ounce prune` writes, and predict the same?

Not part of the test suite: it needs llama.cpp as the package xllamacpp (pip install xllamacpp). To repeat:

    cargo build --release && python tests/compare/unequal.py [--ounce target/release/ounce] [MODEL]

For some shares MODEL (the built-in one) is pruned and written in F32, as it was stored, in Q8_0 and in Q4_0; both programs then continue
three beginnings greedily. Prints a line for each file; exits 1 if texts differ in F32, where both compute the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import xllamacpp

BEGINNINGS = ["One day the cat", "Mia and Tom went to the", "The old man had a"]
TOKENS = 24


def llama_cpp(path):
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = 256
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    texts = []
    for beginning in BEGINNINGS:
        out = server.handle_completions({"prompt": beginning, "max_tokens": TOKENS, "temperature": 0})
        texts.append(out["choices"][0]["text"])
    return texts


def ounce(program, path):
    run = lambda it: [program, "run", path, it, "--temperature", "0", "-n", str(TOKENS)]
    ran = [subprocess.run(run(it), capture_output=True, text=True, check=True).stdout for it in BEGINNINGS]
    return [text.rstrip("\n") for text in ran]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default="builtin")
    parser.add_argument("--ounce", default="target/release/ounce")
    args = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for share in ["0.1", "0.3", "0.5"]:
            cut = os.path.join(folder, "cut.gguf")
            command = [args.ounce, "prune", args.model, "--ratio", share, "--no-test", "--force", "-o", cut, "--json"]
            made = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            shapes = {(it["heads"][1], it["channels"][1]) for it in made["layers"]}
            for dtype in ["f32", None, "q8_0", "q4_0"]:
                path = cut
                if dtype:
                    path = os.path.join(folder, f"{dtype}.gguf")
                    subprocess.run([args.ounce, "convert", cut, path, "--dtype", dtype, "--force"], capture_output=True, check=True)
                theirs, ours = llama_cpp(path), ounce(args.ounce, path)
                same = sum(a.strip() == b.strip() for a, b in zip(theirs, ours))
                failed |= dtype == "f32" and same < len(BEGINNINGS)
                print(f"{share} cut, {len(shapes)} shapes of layers, {dtype or 'as stored'}: {same} of {len(BEGINNINGS)} texts equal", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
