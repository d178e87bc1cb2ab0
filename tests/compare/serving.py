"""What serving costs and saves beside the bare engine, in turns on one machine.

    cargo build --release
    python tests/compare/serving.py model.gguf [--ounce target/release/ounce] [--turns 7] [--only overhead,cpu,prefix,guesses]

overhead  One client's request against `ounce run` of the same prompt and length (times of prompt and answer as it reports them, without
          loading), both greedy, without guesses and without a prefix cache. Whole answers, and streams read token by token.
cpu       The same in processor time a token, with one thread: of the server's engine thread against `ounce run` (an answer of --tokens less one
          of a single token), and of all the server's threads against that one. For machines that do other things, too.
prefix    The first token of a second request that shares 1,000 tokens with the first, against the first's.
guesses   `ounce bench serve` with two servers, one without guesses: on text that repeats itself, on tales, on random tokens (temperature 2), and on
          prompts of --prompts (JSON objects with a `prompt`, one a line), as tests/compare/edits.py makes them for a model that learned to edit.

Prints medians and the spread of ratios. Needs nothing but Python.
"""

import argparse
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import time
import urllib.request

WORDS = "the a little girl boy dog cat ball house tree sun rain went saw took gave said ran happy sad big red old new day night with from under".split()


def text(words, seed):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(words))


class Server:
    def __init__(self, args, *flags):
        with socket.socket() as it:
            it.bind(("127.0.0.1", 0))
            self.port = it.getsockname()[1]
        command = [args.ounce, "serve", args.model, "--port", str(self.port), "--threads", str(args.threads), *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process.stdout.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, body):
        """Seconds to the first piece of the answer and to its end, and the answer where it is not streamed."""
        body = {"temperature": 0, "ignore_eos": True, **body}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        start, first = time.perf_counter(), None
        if body.get("stream"):
            # No library between: what a client takes itself is taken from the server on two cores.
            with socket.create_connection(("127.0.0.1", self.port)) as it:
                text = json.dumps(body).encode()
                it.sendall(b"POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text) + text)
                buffer, beginning = bytearray(1 << 16), b""
                while got := it.recv_into(buffer):
                    if first is None:
                        beginning += buffer[:got]
                        if not beginning.startswith(b"HTTP/1.0 200") and not beginning.startswith(b"HTTP/1.1 200"):
                            raise SystemExit(beginning.decode())
                        if b"data: " in beginning:
                            first = time.perf_counter() - start
            return first, time.perf_counter() - start, None
        with urllib.request.urlopen(request) as answer:
            whole = json.load(answer)
        return None, time.perf_counter() - start, whole


def told(name, ratios):
    ratios = sorted(ratios)
    print(f"{name}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}, {len(ratios)} turns)", flush=True)


def overhead(args):
    prompt = text(args.prompt * 3 // 4, 1)
    flags = ["--no-speculation", "--no-prefix-cache"]
    ratios = {"whole": [], "streamed": []}
    with Server(args, *flags) as server:
        server.ask({"prompt": prompt, "max_tokens": args.tokens})
        # A model may end its text earlier; then both write as much as it does.
        first = [args.ounce, "run", args.model, prompt, "--raw", "--greedy", "-n", str(args.tokens), "--json"]
        tokens = len(json.loads(subprocess.run(first, capture_output=True, check=True).stdout)["tokens"])
        print(f"{tokens} tokens", flush=True)
        for turn in range(args.turns + 1):
            run = [args.ounce, "run", args.model, prompt, "--raw", "--greedy", "-n", str(tokens), "--json", "--threads", str(args.threads)]
            timings = json.loads(subprocess.run(run, capture_output=True, check=True).stdout)["timings"]
            bare = timings["prompt_seconds"] + timings["decode_seconds"]
            for name, stream in (("whole", False), ("streamed", True)):
                took = statistics.median(server.ask({"prompt": prompt, "max_tokens": tokens, "stream": stream})[1] for _ in range(3))
                if turn:  # the first turn warms up
                    ratios[name].append(took / bare)
    for name, all_ratios in ratios.items():
        told(f"one client, {name}: time against ounce run", all_ratios)


def cpu(args):
    prompt, tokens = text(20, 1), args.tokens
    common = ["--raw", "--greedy", "--threads", "1", "--json"]

    def of_threads(pid):
        found = {}
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/comm") as name, open(f"/proc/{pid}/task/{task}/schedstat") as stat:
                name, nanoseconds = name.read().strip(), int(stat.read().split()[0])
            found[name] = found.get(name, 0) + nanoseconds / 1e9
        return found

    def run(count):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [args.ounce, "run", args.model, prompt, "-n", str(count), *common]
        told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        if len(told["tokens"]) != count:
            raise SystemExit(f"{args.model} ended its text; take a model with random weights")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    engine, every = {False: [], True: []}, {False: [], True: []}
    args.threads = 1
    with Server(args, "--no-speculation", "--no-prefix-cache") as server:
        server.ask({"prompt": prompt, "max_tokens": 8})
        for _ in range(args.turns):
            bare = run(tokens) - run(1)
            for stream in (False, True):
                server.ask({"prompt": prompt, "max_tokens": 1, "stream": stream})
                before = of_threads(server.process.pid)
                server.ask({"prompt": prompt, "max_tokens": tokens, "stream": stream})
                used = {name: value - before.get(name, 0) for name, value in of_threads(server.process.pid).items()}
                engine[stream].append(used["engine"] / bare)
                every[stream].append(sum(used.values()) / used["engine"])
    for stream, name in ((False, "whole"), (True, "streamed")):
        told(f"processor time, {name}: the engine's thread against ounce run", engine[stream])
        told(f"processor time, {name}: all threads against the engine's", every[stream])


def prefix(args):
    ratios = []
    with Server(args, "--no-speculation") as server:
        for turn in range(args.turns + 1):
            shared = text(1000, 100 + turn)
            first, second = (server.ask({"prompt": shared + end, "max_tokens": 2, "stream": True})[0] for end in (" One.", " Two."))
            if turn:
                ratios.append(second / first)
    told("second first token with 1,000 shared words, against the first's", ratios)


def guesses(args):
    with Server(args) as on, Server(args, "--no-speculation") as off:
        parts = [("text that repeats itself", ["--repeat", "3"]), ("tales", []), ("random tokens", ["--temperature", "2"])]
        if args.prompts:
            parts.insert(0, (args.prompts, ["--prompts", args.prompts]))
        for name, flags in parts:
            bench = [args.ounce, "bench", "serve", f"on=http://127.0.0.1:{on.port}", f"off=http://127.0.0.1:{off.port}", "--json"]
            bench += ["--clients", "1", "--requests", "6", "--turns", str(args.turns), "-n", str(args.tokens), *flags]
            if "--prompts" not in flags:
                bench += ["--prompt", str(args.prompt)]
            rows = json.loads(subprocess.run(bench, capture_output=True, check=True).stdout)
            told(f"guesses, {name}: tokens a second against none", rows[1]["first_server"]["throughput_turns"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--ounce", default="target/release/ounce")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompts", help="a file of prompts for guesses")
    parser.add_argument("--only", default="overhead,prefix,guesses")
    args = parser.parse_args()
    for part in args.only.split(","):
        {"overhead": overhead, "cpu": cpu, "prefix": prefix, "guesses": guesses}[part](args)


if __name__ == "__main__":
    main()
