"""GPTQ of whole decoder layers as its authors' PyTorch code goes through a model, and `ounce bench quantize` on the same
shape and number of calibration tokens, in turn.

    python tests/compare/gptq_model.py OUNCE [--shape smollm2-135m] [--layers 4] [--tokens 4096] [--rounds 2] [--threads 2]

needs torch and transformers. The layers have random weights. For each layer, in the authors' "true sequential" order (query,
key and value; output; gate and up; down), hooks add up x x^T while the calibration sequences run through the layer, then the
matrices are quantized (4 bits, groups of 128, damping 0.01, blocks of 128 columns); at last the sequences run through the
finished layer. Both do the same number of layers and print seconds a billion weights. At the end the medians of the ratios.
"""

import argparse
import json
import statistics
import subprocess
import time

import torch
from gptq_speed import gptq
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

SHAPES = {
    "smollm2-135m": dict(hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3),
    "llama-3.2-1b": dict(hidden_size=2048, intermediate_size=8192, num_attention_heads=32, num_key_value_heads=8),
}
STAGES = [["q_proj", "k_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]
LENGTH = 512


def pytorch(shape, layers, tokens):
    """Seconds a billion weights."""
    config = LlamaConfig(**SHAPES[shape], num_hidden_layers=layers, attn_implementation="sdpa")
    torch.manual_seed(1)
    hidden = [torch.randn(1, LENGTH, config.hidden_size) for _ in range(tokens // LENGTH)]
    positions = torch.arange(LENGTH).unsqueeze(0)
    rotation = LlamaRotaryEmbedding(config)(hidden[0], positions)
    made = [LlamaDecoderLayer(config, index).eval() for index in range(layers)]
    weights = sum(m.weight.numel() for layer in made for m in layer.modules() if isinstance(m, torch.nn.Linear))

    def run(layer, x):
        out = layer(x, position_embeddings=rotation, position_ids=positions)
        return out[0] if isinstance(out, tuple) else out

    start = time.perf_counter()
    for layer in made:
        linears = {name.split(".")[-1]: m for name, m in layer.named_modules() if isinstance(m, torch.nn.Linear)}
        for stage in STAGES:
            hessians = {name: torch.zeros(linears[name].in_features, linears[name].in_features) for name in stage}
            seen = dict.fromkeys(stage, 0)

            def hook(name):
                def add(_, inputs, __):
                    x = inputs[0].reshape(-1, inputs[0].shape[-1]).t()
                    hessians[name].mul_(seen[name] / (seen[name] + 1))
                    seen[name] += 1
                    x = x.mul((2 / seen[name]) ** 0.5)
                    hessians[name].add_(x.matmul(x.t()))

                return add

            handles = [linears[name].register_forward_hook(hook(name)) for name in stage]
            for x in hidden:
                run(layer, x)
            for handle in handles:
                handle.remove()
            for name in stage:
                # The last block of columns of rows that are no whole number of groups has a group of its own.
                linears[name].weight.data = gptq(linears[name].weight.data, hessians[name])
        hidden = [run(layer, x) for x in hidden]
    return (time.perf_counter() - start) / weights * 1e9


def ounce(program, shape, layers, tokens, threads):
    command = [program, "bench", "quantize", "--shape", shape, "--tokens", str(tokens), "--type", "g4_128", "--layers", str(layers)]
    command += ["--methods", "gptq-plain,gptq", "--threads", str(threads), "--json"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["rows"]
    return [row["seconds_per_billion_weights"] for row in rows]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ounce")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    threads = torch.get_num_threads()
    print(f"{options.shape}, {options.tokens} calibration tokens, {threads} threads; seconds a billion weights")
    ratios = []
    for _ in range(options.rounds):
        with torch.no_grad():
            peer = pytorch(options.shape, options.layers, options.tokens)
        plain, descent = ounce(options.ounce, options.shape, options.layers, options.tokens, threads)
        ratios.append((peer / plain, peer / descent))
        print(
            f"PyTorch {peer:.0f}, ounce {plain:.0f} ({peer / plain:.2f} times as fast), "
            f"with descent {descent:.0f} ({peer / descent:.2f})",
            flush=True,
        )
    plain, descent = (statistics.median(ratio) for ratio in zip(*ratios))
    print(f"median of {options.rounds}: {plain:.2f} times as fast, with descent {descent:.2f}")


main()
