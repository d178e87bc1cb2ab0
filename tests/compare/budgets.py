#!/usr/bin/env python3
"""Twelve budgets: does what `ounce fit` chooses meet them as measured, and was there a better one among what it tried?

Usage: budgets.py [--ounce target/release/ounce] [--time 30s] [--only 1,2]

Each budget is a run of `ounce fit --no-heal`. Then the chosen one and up to two others that the plan tried and expected to meet the
budget, those with the least loss, are made by `ounce quantize`, which tells their loss on text that neither planning nor
calibration saw, and measured by `ounce bench costs`. Another candidate counts as better if it
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
    ("builtin", ["--memory", "27M"]),
    ("builtin", ["--memory", "25500K", "--context", "256"]),
    ("builtin", ["--memory", "30M", "--per-token", "150us"]),
    ("builtin", ["--disk", "2400K", "--quality", "ppl<+1%"]),
    ("builtin", ["--disk", "3500K", "--quality", "top1>98%"]),
    ("builtin", ["--memory", "28M", "--first-token", "20ms", "--prompt", "256"]),
    ("builtin-tiny", ["--disk", "360K"]),
    ("builtin-tiny", ["--disk", "400K", "--quality", "ppl<+1%"]),
]
OTHERS = 1


def run(command, codes=(0,)):
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode not in codes:
        sys.exit(f"{' '.join(command)}: {ran.returncode}: {ran.stderr[-600:]}")
    return ran


def make(ounce, model, candidate, asked, target):
    """Makes a candidate of one quantize step, and measures it: KL divergence with its standard error, and costs."""
    run_as = candidate["recipe"].get("run", {})
    flags = [f"--{name}={value}" for name, value in candidate["recipe"]["step"][0].items() if name != "do"]
    made = json.loads(run([ounce, "quantize", model, *flags, "-o", target, "--force", "--json"]).stdout)
    command = [ounce, "bench", "costs", target, "--prompt", str(asked["prompt"]), "--context", str(asked["context"]), "--json"]
    costs = json.loads(run(command + (["--kv", run_as["kv"]] if run_as.get("kv") else [])).stdout)
    costs["disk"] = os.path.getsize(target)
    loss = made["divergence"]["mean_kl"]
    return loss["value"], loss["stderr"], costs


def meets(asked, costs):
    return all(costs[name] <= limit for name, limit in asked["budget"].items() if limit is not None and name in costs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--ounce", default="target/release/ounce")
    parser.add_argument("--time", default="30s")
    parser.add_argument("--only", default="")
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
        print(line + ("met" if report["met"] else "MISSED"), flush=True)
        plan = report["plan"]
        chosen = plan["candidates"][plan["chosen"]]
        told = ", ".join(f"{row['limit']} {row['measured']:.4g} ({100 * row['error']:+.1f} %)" for row in report["rows"] if row["budget"])
        print(f"     {chosen['name']}: {told}")
        if chosen["recipe"]["step"][0]["do"] != "quantize":
            print("     nothing can be better")
            continue
        tried = [
            it
            for index, it in enumerate(plan["candidates"])
            if index != plan["chosen"]
            and not it["misses"]
            and it["expected"]
            and it["expected"]["basis"] in ("trial", "rounded_trial")
            and it["recipe"]["step"] != chosen["recipe"]["step"]
            and it["recipe"]["step"][0]["do"] == "quantize"
        ]
        tried.sort(key=lambda it: it["expected"]["kl"])
        own, own_error, _ = make(args.ounce, model, chosen, report["asked"], target)
        print(f"     chosen: KL {own:.6f} ± {own_error:.6f}, in its trial {chosen['expected']['kl']:.6f}")
        beaten = False
        for other in tried[:OTHERS]:
            kl, error, costs = make(args.ounce, model, other, report["asked"], target + ".other.gguf")
            wins = meets(report["asked"], costs) and kl < own - 2 * (own_error**2 + error**2) ** 0.5
            beaten |= wins
            print(f"     {other['name']}: KL {kl:.6f} ± {error:.6f}{', BETTER' if wins else ''}")
        better += beaten
    total = len(only) or len(BUDGETS)
    print(f"{met} of {total} budgets met as measured, a better candidate among those tried in {better}")


if __name__ == "__main__":
    main()
