#!/usr/bin/env python3
"""Twelve budgets: does what `ounce fit` chooses meet them as measured, and was there a better one among what it tried?

Usage: budgets.py [--ounce target/release/ounce] [--time 30s] [--only 1,2] [--ladder] [--beside quantize]

Each budget is a run of `ounce fit --no-heal`. Then another candidate that the plan tried and expected to meet the budget, the one with
the least loss, is made by `ounce compress`, which tells its loss on text that neither planning nor calibration saw, and measured by
`ounce bench costs`. It counts as better if it meets the budget as measured and its KL divergence is less than the chosen one's by
more than twice the standard error of the two.

With `--ladder` the budgets are other ones: files of a half to a fifth of the built-in models' sizes, in even steps.

With `--beside TECHNIQUES` each budget is given to a second run that may do only that, and the losses are set side by side: which of
the two is better by more than twice the standard error.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

BUDGETS = [
    ("builtin", ["--memory", "31M", "--disk", "2300K"]),
    ("builtin", ["--disk", "2500K"]),
    ("builtin", ["--disk", "3M"]),
    ("builtin", ["--disk", "4M", "--quality", "kl<0.001"]),
    ("builtin", ["--memory", "27M"]),
    ("builtin", ["--memory", "25500K", "--context", "256"]),
    ("builtin", ["--memory", "30M", "--per-token", "150us"]),
    ("builtin", ["--disk", "2400K", "--quality", "ppl<+1%"]),
    ("builtin", ["--disk", "3500K", "--quality", "top1>98%"]),
    ("builtin", ["--memory", "28M", "--first-token", "20ms", "--prompt", "256"]),
    ("builtin-tiny", ["--disk", "360K"]),
    ("builtin-tiny", ["--disk", "400K", "--quality", "ppl<+1%"]),
]
# Bytes of the built-in models' files, and what they are divided by.
SIZES = {"builtin": 7085568, "builtin-tiny": 721920}
LADDER = [(model, ["--disk", str(int(size / by))]) for model, size in SIZES.items() for by in (2, 2.5, 3, 3.5, 4, 5)]
OTHERS = 1


def run(command, codes=(0,)):
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode not in codes:
        sys.exit(f"{' '.join(command)}: {ran.returncode}: {ran.stderr[-600:]}")
    return ran


def toml(recipe):
    value = lambda it: json.dumps(it)
    lines = []
    for step in recipe["step"]:
        lines += ["[[step]]"] + [f"{name} = {value(it)}" for name, it in step.items()]
    return "\n".join(lines) + "\n"


def make(ounce, model, candidate, asked, target):
    """Makes a candidate, and measures it: KL divergence with its standard error, and costs."""
    run_as = candidate["recipe"].get("run", {})
    with open(target + ".toml", "w") as file:
        file.write(toml(candidate["recipe"]))
    made = json.loads(run([ounce, "compress", model, "--recipe", target + ".toml", "-o", target, "--force", "--json"]).stdout)
    command = [ounce, "bench", "costs", target, "--prompt", str(asked["prompt"]), "--context", str(asked["context"]), "--json"]
    costs = json.loads(run(command + (["--kv", run_as["kv"]] if run_as.get("kv") else [])).stdout)
    costs["disk"] = os.path.getsize(target)
    loss = made["divergence"]["mean_kl"]
    return loss["value"], loss["stderr"], costs


def fit(args, model, flags, target, more=()):
    command = [args.ounce, "fit", model, *flags, *more, "--no-heal", "--time", args.time, "-o", target, "--json"]
    return json.loads(run(command, (0, 1)).stdout)


def meets(asked, costs):
    return all(costs[name] <= limit for name, limit in asked["budget"].items() if limit is not None and name in costs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ounce", default="target/release/ounce")
    parser.add_argument("--time", default="30s")
    parser.add_argument("--only", default="")
    parser.add_argument("--beside", metavar="TECHNIQUES")
    parser.add_argument("--ladder", action="store_true")
    args = parser.parse_args()
    only = {int(it) for it in args.only.split(",") if it}
    met = better = 0
    ahead = behind = 0
    folder = tempfile.mkdtemp()
    budgets = LADDER if args.ladder else BUDGETS
    for number, (model, flags) in enumerate(budgets, 1):
        if only and number not in only:
            continue
        target = os.path.join(folder, f"{number}.gguf")
        report = fit(args, model, flags, target)
        line = f"{number:>2} {model} {' '.join(flags)}: "
        if not os.path.exists(target):
            print(line + "nothing was chosen", flush=True)
            continue
        met += report["met"]
        print(line + ("met" if report["met"] else "MISSED"), flush=True)
        plan = report["plan"]
        chosen = plan["candidates"][plan["chosen"]]
        told = ", ".join(f"{row['limit']} {row['measured']:.4g} ({100 * row['error']:+.1f} %)" for row in report["rows"] if row["budget"])
        print(f"     {chosen['name']}: {told}")
        own, own_error = report["quality"]["mean_kl"]["value"], report["quality"]["mean_kl"]["stderr"]
        print(f"     chosen: KL {own:.6f} ± {own_error:.6f}, in its trial {chosen['expected']['kl']:.6f}", flush=True)
        if args.beside:
            other = fit(args, model, flags, target + ".beside.gguf", ["--techniques", args.beside])
            if "quality" not in other:
                print(f"     {args.beside} alone: nothing meets it")
                ahead += report["met"]
                continue
            kl, error = other["quality"]["mean_kl"]["value"], other["quality"]["mean_kl"]["stderr"]
            noise = 2 * (own_error**2 + error**2) ** 0.5
            ahead += report["met"] and (own < kl - noise or not other["met"])
            behind += other["met"] and (kl < own - noise or not report["met"])
            print(f"     {args.beside} alone: {other['chosen']}, KL {kl:.6f} ± {error:.6f}{'' if other['met'] else ', MISSED'}", flush=True)
            continue
        tried = [
            it
            for index, it in enumerate(plan["candidates"])
            if index != plan["chosen"]
            and not it["misses"]
            and it["expected"]
            and it["expected"]["basis"] in ("trial", "rounded_trial")
            and it["recipe"]["step"] != chosen["recipe"]["step"]
        ]
        tried.sort(key=lambda it: it["expected"]["kl"])
        beaten = False
        for other in tried[:OTHERS]:
            kl, error, costs = make(args.ounce, model, other, report["asked"], target + ".other.gguf")
            wins = meets(report["asked"], costs) and kl < own - 2 * (own_error**2 + error**2) ** 0.5
            beaten |= wins
            print(f"     {other['name']}: KL {kl:.6f} ± {error:.6f}{', BETTER' if wins else ''}", flush=True)
        better += beaten
    total = len(only) or len(budgets)
    print(f"{met} of {total} budgets met as measured")
    if args.beside:
        print(f"better than with {args.beside} alone in {ahead}, worse in {behind}")
    else:
        print(f"a better candidate among those tried in {better}")


if __name__ == "__main__":
    main()
