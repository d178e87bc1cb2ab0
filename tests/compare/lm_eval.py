"""Runs lm-evaluation-harness and ounce on the same tasks and the same model, and prints their scores side by side.

Not part of the test suite: it needs the harness, transformers and torch. To repeat:

    python -m venv venv && venv/bin/pip install "lm-eval==0.4.*" transformers torch accelerate
    cargo build --release
    venv/bin/python tests/compare/lm_eval.py                     # tales, and a few-shot task on top of them
    venv/bin/python tests/compare/lm_eval.py --model builtin-tiny --limit 50 --tasks tales,tales_words
    venv/bin/python tests/compare/lm_eval.py --serve             # the harness asks `ounce serve` (local-completions); no torch

`ounce eval --write-tasks` writes the tasks about generated tales with their data, `ounce convert` the model as a folder of
F32 weights; both programs read the same files. `tales_shots` is made here: three examples before each question, drawn by the
same seed from a split of their own. ounce computes as its reference (F32 on weights as they are stored) and in its fast mode;
the harness in F32 on the CPU.

Prints a table in Markdown, with the largest difference of a question's log-likelihood; exits 1 if a score in percent differs by
more than 0.1 points, or a perplexity by more than 0.1 %.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

# Nothing is to be downloaded: data and model are local.
os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

POINTS = 0.1
SHOTS = """task: tales_shots
dataset_path: json
dataset_kwargs:
  data_files: {train: tales_train.jsonl, test: tales_test.jsonl}
output_type: multiple_choice
training_split: train
test_split: test
num_fewshot: 3
description: "Tales go on.\\n\\n"
doc_to_text: "Tale {{begin.split(' ')|length}}: {{begin}}"
doc_to_target: "{{label}}"
doc_to_choice: "{{choices}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
  - metric: acc_bytes
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def run(*command, cwd=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\nfailed with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def few_shots(folder):
    lines = (folder / "tales.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "tales_train.jsonl").write_text("".join(lines[:100]), encoding="utf-8")
    (folder / "tales_test.jsonl").write_text("".join(lines[100:]), encoding="utf-8")
    (folder / "tales_shots.yaml").write_text(SHOTS, encoding="utf-8")


def local(model):
    return "hf", {"pretrained": str(model), "dtype": "float32"}


def served(program, model):
    """ounce serve, and how the harness asks it."""
    server = subprocess.Popen([str(program), "serve", str(model), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    address = server.stdout.readline().split()[-1]
    positions = json.loads((pathlib.Path(model) / "config.json").read_text())["max_position_embeddings"]
    arguments = {
        "base_url": f"{address}/v1/completions", "model": pathlib.Path(model).name, "tokenizer": str(model),
        "tokenizer_backend": "huggingface", "num_concurrent": 4, "max_length": positions, "tokenized_requests": True, "add_bos_token": True,
    }
    return server, ("local-completions", arguments)


def harness(folder, how, tasks, limit, seed):
    # This file has the package's name.
    sys.path[:] = [place for place in sys.path if pathlib.Path(place or ".").resolve() != pathlib.Path(__file__).resolve().parent]
    import lm_eval
    from lm_eval.tasks import TaskManager

    # The harness names data files from where it runs.
    os.chdir(folder)
    kind, arguments = how
    found = lm_eval.simple_evaluate(
        model=kind,
        model_args=arguments,
        tasks=tasks,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        device=None if kind == "local-completions" else "cpu",
        batch_size=1,
        limit=limit,
        fewshot_random_seed=seed,
        bootstrap_iters=0,
        log_samples=True,
    )
    return found["results"], found["samples"]


def ounce(program, folder, model, tasks, limit, seed, mode):
    samples = folder / f"samples-{mode}.jsonl"
    command = [program, "eval", model, "--tasks", ",".join(f"{task}.yaml" for task in tasks), "--seed", seed]
    command += ["--mode", mode, "--no-cache", "--json", "--log-samples", samples]
    if limit:
        command += ["--limit", limit]
    found = json.loads(run(*command, cwd=folder))["results"]
    by_task = {}
    for line in samples.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        by_task.setdefault(sample["task"], {})[sample["doc_id"]] = sample
    return found, by_task


def apart(theirs, ours):
    """The largest difference of a log-likelihood, or how many written answers differ."""
    worst, other = 0.0, 0
    for sample in theirs:
        mine = ours[sample["doc_id"]]
        said = sample["filtered_resps"]
        for their, our in zip(said if isinstance(said[0], (list, tuple)) else [said], mine["resps"]):
            if isinstance(our, str):
                other += sample["resps"][0][0] != our
            else:
                their = their[0] if isinstance(their, (list, tuple)) else their
                worst = max(worst, abs(float(their) - our[0]))
    return f"{other} of {len(theirs)} answers" if other or isinstance(next(iter(ours.values()))["resps"][0], str) else f"{worst:.1e}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ounce", type=pathlib.Path, default=pathlib.Path("target/release/ounce"))
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--tasks", default="tales,tales_shots,tales_answers,tales_words,tales_text")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--seed", type=int, default=1234)
    parser.add_argument("--serve", action="store_true", help="ask ounce serve in place of transformers")
    options = parser.parse_args()
    program, tasks = options.ounce.resolve(), options.tasks.split(",")
    with tempfile.TemporaryDirectory() as work:
        folder, model = pathlib.Path(work, "tasks"), pathlib.Path(work, "model")
        run(program, "eval", "--write-tasks", folder)
        few_shots(folder)
        run(program, "convert", options.model, model, "--dtype", "f32")
        for file in folder.glob("*.yaml"):
            if file.stem not in tasks:
                file.unlink()
        ours = {mode: ounce(program, folder, model, tasks, options.limit, options.seed, mode) for mode in ("reference", "fast")}
        server, how = served(program, model) if options.serve else (None, local(model))
        try:
            results, samples = harness(folder, how, tasks, options.limit, options.seed)
        finally:
            if server:
                server.terminate()
    wrong = []
    print(f"\n{options.model}, F32:\n")
    print("| Task | Metric | lm-evaluation-harness | ounce, reference | ounce, fast | Largest difference of a question, reference |")
    print("|---|---|---|---|---|---|")
    for task in tasks:
        difference = apart(samples[task], ours["reference"][1][task])
        for key, theirs in results[task].items():
            if "," not in key or "_stderr" in key:
                continue
            reference, fast = (ours[mode][0][task][key] for mode in ("reference", "fast"))
            percent = "perplexity" not in key and "bits" not in key
            limit = POINTS / 100 if percent else POINTS / 100 * abs(theirs)
            show = (lambda value: f"{100 * value:.2f} %") if percent else (lambda value: f"{value:.5f}")
            print(f"| {task} | {key} | {show(theirs)} | {show(reference)} | {show(fast)} | {difference} |")
            for mode, value in (("reference", reference), ("fast", fast)):
                if not abs(value - theirs) <= limit:
                    wrong.append(f"{task} {key}: {theirs} against {value} in the {mode} mode")
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
