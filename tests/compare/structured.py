"""Ways to a structurally smaller model, at the same parameters and the same tokens of healing.

Not part of the test suite: it takes some minutes. To repeat:

    cargo build --release && cargo build --release -p ounce-lab --example stories
    target/release/examples/stories --seed 601 --bytes 2000000 > heal.txt
    target/release/examples/stories --seed 777 --bytes 60000 > test.txt
    python tests/compare/structured.py heal.txt test.txt [--ounce target/release/ounce] [--tokens 400000] [--model builtin]

Every way removes 30 % of all parameters. Those that cut at once are healed behind it by the original's predictions (`ounce heal`; with `--hard 1` by the text's own tokens, as the others learn), those that
train while they cut (`--train`) read as many tokens in that. Prints parameters, perplexity and KL on the test text before and
after healing, and the speed of decoding beside the original's in interleaved runs.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile

KEPT = 0.7
WAYS = [
    ("layers leave (ShortGPT)", "prune", ["--method", "layers"], "all"),
    ("heads and channels by Taylor (LLM-Pruner)", "prune", ["--no-answer"], "all"),
    ("the same, fitted", "prune", [], "all"),
    ("the same, layers alike", "prune", ["--uniform"], "all"),
    ("low rank, for the inputs (SVD)", "factorize", [], "all"),
    ("EfficientLLM", "prune", ["--train", "efficient-llm"], None),
    ("EfficientLLM, the stream kept", "prune", ["--train", "efficient-llm", "--keep-stream"], None),
    ("Compresso", "prune", ["--train", "compresso"], None),
    ("Compresso, the stream kept", "prune", ["--train", "compresso", "--keep-stream"], None),
    ("AmoebaLLM", "prune", ["--train", "amoeba"], None),
    ("AmoebaLLM, healed alone for half of the tokens", "prune", ["--train", "amoeba"], "half"),
    ("AmoebaLLM of layers alike", "prune", ["--train", "amoeba", "--uniform"], None),
]


def low_rank(run, args, made, text, most):
    """Factors of the same share of every matrix, to one rank exactly: `--ratio` rounds ranks from 64 on, which costs a fifth of this model."""
    thin = os.path.join(os.path.dirname(made), "thin.gguf")
    shapes = json.loads(run("factorize", args.model, "-o", thin, "--ratio", 0.5, "--dry-run", "--json"))
    whole, wide = shapes["parameters_before"], shapes["matrices"]
    size = lambda it: it["rows"] * it["columns"]
    rank = lambda it, share: int(share * size(it) / (it["rows"] + it["columns"]))
    left = lambda share: whole - sum(size(it) - rank(it, share) * (it["rows"] + it["columns"]) for it in wide)
    share = max(it / 1000 for it in range(1, 1000) if left(it / 1000) <= most)
    model, place = args.model, 0
    for kind in sorted({it["name"].split(".", 2)[2] for it in wide}):
        own = {rank(it, share) for it in wide if it["name"].endswith(kind)}
        assert len(own) == 1, f"layers differ in {kind}"
        place += 1
        last = os.path.join(os.path.dirname(made), f"thin{place}.gguf")
        run("factorize", model, "-o", last, "--force", "--only", f"*.{kind}.*", "--rank", own.pop(), *text)
        model = last
    os.replace(model, made)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("heal")
    parser.add_argument("test")
    parser.add_argument("--ounce", default="target/release/ounce")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--hard", default="0", help="the part of the text's own tokens in healing")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="names of ways, with | between")
    args = parser.parse_args()

    def run(*command):
        ran = subprocess.run([args.ounce, "--threads", str(args.threads), *map(str, command)], capture_output=True, text=True)
        if ran.returncode:
            raise SystemExit(f"{command}: {ran.returncode}: {ran.stderr[-500:]}")
        return ran.stdout

    def stand(path):
        found = json.loads(run("eval", path, "--against", args.model, "--perplexity", args.test, "--json"))["divergence"]
        return found["perplexity"]["value"], found["mean_kl"]["value"]

    shown = json.loads(run("show", args.model, "--json"))
    whole = shown["parameters"]
    outer = sum(it["parameters"] for it in shown["groups"] if it["group"] in ("embedding", "norms"))
    most = int(KEPT * whole)

    def speeds(*paths):
        """Tokens a second, the best of three turns."""
        best = [0.0] * len(paths)
        for _ in range(3):
            for place, path in enumerate(paths):
                costs = json.loads(run("bench", "costs", path, "--prompt", 32, "--context", 256, "--json"))
                best[place] = max(best[place], 1 / costs["per_token"])
        return best

    with tempfile.TemporaryDirectory() as folder:
        original = os.path.join(folder, "original.gguf")
        run("convert", args.model, original)
        for name, command, flags, heals in WAYS:
            if args.only and name not in args.only.split("|"):
                continue
            made = os.path.join(folder, "made.gguf")
            # What learns before the cut, and what behind it.
            behind = {"all": args.tokens, "half": args.tokens // 2, None: 0}[heals]
            before = args.tokens - behind
            text = ["--calibration", args.heal]
            if before:
                text += ["--calibration-tokens", before, "--train-steps", max(1, before // 2048)]
            if command == "prune":
                text += ["--no-test"]
            count = lambda: json.loads(run("show", made, "--json"))["parameters"]
            make = lambda *more: run(command, args.model, "-o", made, "--force", *more, *flags, *text)
            ended = []
            for seed in range(args.seeds):
                if "amoeba" in flags:
                    shapes = os.path.join(folder, "any.shapes")
                    # Shares in ten-thousandths, rounded up: the narrowest shape of all layers is as large as may be.
                    share = math.ceil(10_000 * (whole - most) / (whole - outer)) / 10_000
                    run("prune", args.model, "-o", shapes, "--force", "--ratio", share, "--train-seed", seed, *flags, *text)
                    run("prune", args.model, "-o", made, "--force", "--params", most, "--shapes", shapes, "--no-test")
                elif command == "prune":
                    make("--params", most, *([] if heals else ["--train-seed", seed]))
                elif seed == 0:
                    low_rank(run, args, made, text, most)
                last = made
                if behind:
                    last = os.path.join(folder, "healed.gguf")
                    run("heal", made, "--teacher", args.model, "--text", args.heal, "--tokens", behind, "--hard", args.hard, "--seed", seed, "-o", last, "--force", "--fresh", "--no-test")
                ended.append(stand(last))
                print(f"  {name}, seed {seed}: {ended[-1]}", file=sys.stderr, flush=True)
            perplexities, kls = zip(*ended)
            at_once = f"cut {stand(made)[0]:.4f}; " if heals == "all" else ""
            here = count()
            a, b = speeds(original, last)
            spread = f" ± {statistics.stdev(perplexities) / len(ended) ** 0.5:.4f}" if len(ended) > 1 else ""
            print(
                f"{name}: {here} of {whole} parameters; perplexity {at_once}{statistics.mean(perplexities):.4f}{spread}, "
                f"KL {statistics.mean(kls):.5f}; decoding {b / a:.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
