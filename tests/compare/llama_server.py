"""ounce serve beside llama-server with the same quantized file: throughput and time to the first token with many clients.

    cargo build --release
    python tests/compare/llama_server.py model.gguf [--ounce target/release/ounce] [--clients 1,4,16,64] [-- more flags of ounce bench serve]

llama-server is llama.cpp's own: the program that --llama-server names, built for this processor, or else that of `pip install xllamacpp`, with continuous batching, one slot a client up to
--slots, flash attention as it chooses, f16 cache, all threads of the machine. Both servers stay up and are asked in turns; a server that is not asked
does nothing. Prints the table of `ounce bench serve`, and the most memory of each server's process.
"""

import argparse
import socket
import subprocess
import sys
import time
import urllib.request


def serve(path, port, slots, context, threads):
    import xllamacpp as x

    p = x.CommonParams()
    p.model.path = path
    p.port, p.hostnames = port, ["127.0.0.1"]
    p.n_parallel, p.n_ctx = slots, slots * context
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
    p.n_gpu_layers = 0
    p.cont_batching = True
    p.warmup = True
    p.verbosity = 0
    server = x.Server(p)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def wait(port, process):
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"a server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("a server does not answer")


def peak(process):
    with open(f"/proc/{process.pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--ounce", default="target/release/ounce")
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--context", type=int, default=1024, help="positions of a slot")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-speculation", action="store_true", help="ounce guesses no tokens: for models with random weights, which say one word again and again")
    parser.add_argument("--llama-server", help="llama.cpp's own program, built for this processor")
    parser.add_argument("--peer", type=int, help=argparse.SUPPRESS)
    # What stands behind -- is for `ounce bench serve`.
    own = sys.argv[1:]
    more = own[own.index("--") + 1:] if "--" in own else []
    args = parser.parse_args(own[:len(own) - len(more) - 1] if "--" in own else own)
    if args.peer:
        return serve(args.model, args.peer, args.slots, args.context, args.threads)
    ports = free_port(), free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    ours = subprocess.Popen([args.ounce, "serve", args.model, "--port", str(ports[0]), "--threads", str(args.threads), *(["--no-speculation"] if args.no_speculation else [])], **quiet)
    peer = [sys.executable, __file__, args.model, "--peer", str(ports[1]), "--slots", str(args.slots), "--context", str(args.context), "--threads", str(args.threads)]
    if args.llama_server:
        peer = [args.llama_server, "-m", args.model, "--host", "127.0.0.1", "--port", str(ports[1]), "-np", str(args.slots), "-c", str(args.slots * args.context)]
        peer += ["-t", str(args.threads), "-tb", str(args.threads)]
    theirs = subprocess.Popen(peer, **quiet)
    try:
        wait(ports[0], ours)
        wait(ports[1], theirs)
        bench = [args.ounce, "bench", "serve", f"ounce=http://127.0.0.1:{ports[0]}", f"llama-server=http://127.0.0.1:{ports[1]}", "--clients", args.clients]
        subprocess.run([*bench, *more], check=True)
        print(f"most memory: ounce {peak(ours):.0f} MiB, llama-server {peak(theirs):.0f} MiB")
    finally:
        for process in (ours, theirs):
            process.terminate()


if __name__ == "__main__":
    main()
