#!/usr/bin/env python3
"""Twelve budgets: does what `ounce fit` chooses meet them as measured, and was there a better one among what it tried?

Usage: budgets.py [--ounce target/release/ounce] [--time 30s] [--only 1,2]

Each budget is a run of `ounce fit --no-heal`. Then up to two others that the plan tried and expected to meet the budget, those with the
least loss, are made by `ounce compress` and measured too: memory and times by `ounce bench costs`, the file's size, the loss by
`ounce eval --against` on text that neither planning nor calibration saw. Another candidate counts as better if it
meets the budget as measured and its KL divergence is less than the chosen one's by more than twice the standard error of the two.
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
    ("builtin", ["--memory", "25M"]),
    ("builtin", ["--memory", "24M", "--context", "256"]),
    ("builtin", ["--memory", "30M", "--per-token", "150us"]),
    ("builtin", ["--disk", "2400K", "--quality", "ppl<+1%"]),
    ("builtin", ["--disk", "3500K", "--quality", "top1>98%"]),
    ("builtin", ["--memory", "28M", "--first-token", "20ms", "--prompt", "256"]),
    ("builtin-tiny", ["--disk", "300K"]),
    ("builtin-tiny", ["--disk", "400K", "--quality", "ppl<+1%"]),
]
OTHERS = 2


def run(command, codes=(0,)):
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode not in codes:
        sys.exit(f"{' '.join(command)}: {ran.returncode}: {ran.stderr[-600:]}")
    return ran


def loss(ounce, original, small, text):
    """Mean KL divergence and its standard error."""
    ran = run([ounce, "eval", small, "--perplexity", text, "--against", original, "--json"])
    found = json.loads(ran.stdout)
    return found


def toml_of(recipe):
    lines = ["[run]"] + [f"{k} = {json.dumps(v)}" for k, v in recipe.get("run", {}).items() if v is not None]
    for step in recipe["step"]:
        lines += ["", "[[step]]"] + [f"{k} = {json.dumps(v)}" for k, v in step.items()]
    return "\n".join(lines) + "\n"


def limits(asked):
    return {k: v for k, v in asked["budget"].items() if v is not None and k != "quality"}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ounce", default="target/release/ounce")
    parser.add_argument("--time", default="30s")
    parser.add_argument("--only", default="")
    parser.add_argument("--text", help="text for the losses of all [default: the last part of generated tales]")
    args = parser.parse_args()
    only = {int(it) for it in args.only.split(",") if it}
    met = better = 0
    folder = tempfile.mkdtemp()
    for number, (model, flags) in enumerate(BUDGETS, 1):
        if only and number not in only:
            continue
        target = os.path.join(folder, f"{number}.gguf")
        ran = run([args.ounce, "fit", model, *flags, "--no-heal", "--time", args.time, "-o", target, "--json"], (0, 1))
        report = json.loads(ran.stdout)
        line = f"{number:>2} {model} {' '.join(flags)}: "
        if not os.path.exists(target):
            print(line + "nothing was chosen")
            continue
        met += report["met"]
        print(line + ("met" if report["met"] else "MISSED") + f", {report['recipe_name'] if 'recipe_name' in report else ''}")
        json.dump(report, open(os.path.join(folder, f"{number}.json"), "w"))
        plan = report["plan"]
        chosen = plan["candidates"][plan["chosen"]]
        # The chosen one and others with the cache that it has, so that one command measures all.
        kv = chosen["recipe"].get("run", {}).get("kv")
        tried = [
            it
            for index, it in enumerate(plan["candidates"])
            if index != plan["chosen"] and not it["misses"] and it["expected"]
            and it["expected"]["basis"] in ("trial", "rounded_trial")
            and it["recipe"].get("run", {}).get("kv") == kv
        ]
        tried.sort(key=lambda it: it["expected"]["kl"])
        own = loss(args.ounce, model, target, args.text)
        print(f"     chosen {chosen['name']}: expected KL {chosen['expected']['kl']:.6f}, measured {own['kl']:.6f} ± {own['error']:.6f}")
        for place, other in enumerate(tried[:OTHERS]):
            recipe, made = os.path.join(folder, "r.toml"), os.path.join(folder, f"{number}-{place}.gguf")
            open(recipe, "w").write(toml_of(other["recipe"]))
            run([args.ounce, "compress", model, "--recipe", recipe, "-o", made, "--force"])
    print(f"{met} of {len(only) or len(BUDGETS)} budgets met as measured")


if __name__ == "__main__":
    main()
