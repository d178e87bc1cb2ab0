"""Times torch's scaled_dot_product_attention, forward and backward, at the shapes of ounce's own bench.

  python tests/compare/attention.py [threads]                  torch
  cargo bench -p ounce-kernels --bench grad -- attention       ounce

Needs: torch. Run both on a machine that does nothing else. Tensors lie as a model has them, token by token.
"""

import statistics
import sys
import time

import torch

SHAPES = [(8, 256, 8, 8, 32), (8, 256, 8, 2, 64), (1, 2048, 8, 8, 64), (4, 512, 4, 1, 128)]
RUNS = 40

torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 2)


def timed(prepare, run):
    times = []
    for _ in range(RUNS):
        given = prepare()
        begun = time.perf_counter()
        run(given)
        times.append(time.perf_counter() - begun)
    return f"{statistics.median(times) * 1e3:.2f} ms (least {min(times) * 1e3:.2f})"


for sequences, length, heads, kv_heads, dim in SHAPES:
    inputs = [
        torch.randn(sequences, length, count, dim).transpose(1, 2).detach().requires_grad_()
        for count in (heads, kv_heads, kv_heads)
    ]

    def attend():
        return torch.nn.functional.scaled_dot_product_attention(
            *inputs, is_causal=True, enable_gqa=heads != kv_heads)

    def forward(_):
        with torch.no_grad():
            attend()

    gradient = torch.randn_like(attend())
    backward = timed(attend, lambda out: torch.autograd.grad(out, inputs, gradient))
    print(f"{sequences}x{length} {heads}/{kv_heads}x{dim}: forward {timed(lambda: None, forward)}, backward {backward}")
