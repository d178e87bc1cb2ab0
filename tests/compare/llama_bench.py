#!/usr/bin/env python3
"""llama-bench for machines that have llama-cpp-python (pip) and not the program itself: takes -m -p -n -r -t -o json.

    ounce bench speed model.gguf --against tests/compare/llama_bench.py

Times llama.cpp's own decode calls, after one run to warm up; prints a JSON list with one row (avg_ts in tokens/s).
"""

import argparse
import ctypes
import json
import os
import sys
import time

import llama_cpp


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-m", required=True)
    parser.add_argument("-p", type=int, default=512)
    parser.add_argument("-n", type=int, default=0)
    parser.add_argument("-r", type=int, default=1)
    parser.add_argument("-t", type=int, default=os.cpu_count())
    parser.add_argument("-o", default="json")
    options = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    model = llama_cpp.llama_model_load_from_file(options.m.encode(), llama_cpp.llama_model_default_params())
    if not model:
        sys.exit(f"{options.m} can't be loaded")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = max(options.p, options.n, 64) + 8
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = options.t
    context = llama_cpp.llama_init_from_model(model, params)
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def decode(ids):
        array = (llama_cpp.llama_token * len(ids))(*ids)
        assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(ids))) == 0
        llama_cpp.llama_synchronize(context)

    def once():
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        ids = [(index * 2654435761 & 0xFFFFFFFF) % vocab for index in range(max(options.p, options.n))]
        start = time.perf_counter()
        if options.p:
            for at in range(0, options.p, 512):
                decode(ids[at : min(at + 512, options.p)])
        for index in range(options.n):
            decode(ids[index : index + 1])
        return (options.p + options.n) / (time.perf_counter() - start)

    once()
    samples = [once() for _ in range(options.r)]
    print(json.dumps([{"n_prompt": options.p, "n_gen": options.n, "avg_ts": sum(samples) / len(samples)}]))


if __name__ == "__main__":
    main()
