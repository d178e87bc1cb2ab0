"""Makes compression.json: what HQQ, AWQ, SmoothQuant and GPTQ compute on small matrices.

    python -m venv .venv
    .venv/bin/pip install torch numpy
    pip download --no-deps --no-binary :all: hqq==0.2.8.post1 && tar xzf hqq-0.2.8.post1.tar.gz   # only its solver is used
    HQQ=hqq-0.2.8.post1 .venv/bin/python tests/golden/compression.py

HQQ's zero points come from its own solver, and once more from numpy with the paper's growing beta. AWQ's search, SmoothQuant's scales and GPTQ's codes follow the papers in numpy, in
float64, with outputs of layers instead of second moments and an explicit inverse instead of a factorisation. Rounding to groups is
that of ounce's formats: extremes with zero among them, an F16 scale, a whole zero point. Matrices are lists of rows, one behind the
other; the numbers are those of float32.
"""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
EXPONENT = 0.7


def plain(array):
    """A list of numbers that are exact when read as float32."""
    return [float(np.format_float_positional(x, unique=True)) for x in np.asarray(array, np.float32).ravel()]


def hqq_solver():
    path = Path(os.environ["HQQ"]) / "hqq" / "core" / "optimize.py"
    loaded = importlib.util.spec_from_file_location("optimize", path)
    module = importlib.util.module_from_spec(loaded)
    loaded.loader.exec_module(module)
    return module.optimize_weights_proximal_legacy


def growing(weights, scale, zero, top):
    """The solver with the paper's growing beta, which release 0.2.8 leaves constant."""
    beta, best = 1e1, np.inf
    for _ in range(20):
        codes = np.clip(np.rint(weights * scale + zero), 0, top)
        error = weights - (codes - zero) / scale
        size = np.maximum(np.abs(error), 1e-30)
        shrunk = np.sign(error) * np.maximum(size - size ** (EXPONENT - 1) / beta, 0)
        zero = (codes - (weights - shrunk) * scale).mean(1, keepdims=True)
        beta *= 1.01
        if np.abs(error).mean() >= best:
            break
        best = np.abs(error).mean()
    return zero


def hqq(generator, bits, group, size):
    solve = hqq_solver()
    weights = generator.standard_normal((4, 128)).astype(np.float32) * np.float32(size)
    weights[:, ::29] *= 4
    top = 2**bits - 1
    grouped = torch.tensor(weights).reshape(-1, group)
    low, high = grouped.amin(1, keepdim=True), grouped.amax(1, keepdim=True)
    scale = (top / (high - low)).clamp(max=2e4)
    zero = -low * scale
    options = {"lp_norm": EXPONENT, "beta": 1e1, "kappa": 1.01, "iters": 20}
    _, _, free = solve(grouped, scale, zero, [0, top], axis=1, device="cpu", opt_params=options)
    paper = growing(*[it.numpy().astype(np.float64) for it in (grouped, scale, zero)], top)
    # The whole zero point with the least norm, by trying those beside the free one and that of the extremes.
    stored = (1 / scale).numpy().astype(np.float16).astype(np.float64)
    values, free = grouped.numpy().astype(np.float64), free.numpy()
    decoded = np.zeros_like(values)
    for row, (w, s, z) in enumerate(zip(values, stored[:, 0], free[:, 0])):
        tried = []
        for candidate in [np.rint(-w.min() / s), np.floor(z), np.ceil(z)]:
            candidate = np.clip(candidate, 0, top)
            value = s * (np.clip(np.rint(w / s) + candidate, 0, top) - candidate)
            tried.append(((np.abs(w - value) ** EXPONENT).sum(), tuple(value)))
        decoded[row] = min(tried, key=lambda it: it[0])[1]
    return {"bits": bits, "group": group, "weights": plain(weights), "zeros": plain(free), "growing": plain(paper), "scales": plain(1 / scale.numpy()),
            "decoded": plain(decoded)}


def inputs(generator, tokens, width):
    hidden = generator.standard_normal((tokens, 8))
    x = hidden @ generator.standard_normal((8, width)) + 0.3 * generator.standard_normal((tokens, width))
    x[:, ::13] *= 12
    return np.round(x, 3).astype(np.float32)


def rounded(weights, bits, group):
    """As ounce's groups store them."""
    top = 2**bits - 1
    grouped = weights.reshape(-1, group)
    low, high = np.minimum(grouped.min(1, keepdims=True), 0), np.maximum(grouped.max(1, keepdims=True), 0)
    scale = ((high - low) / top).astype(np.float16).astype(np.float64)
    zero = np.clip(np.rint(-low / scale), 0, top)
    codes = np.clip(np.rint(grouped / scale) + zero, 0, top)
    return ((codes - zero) * scale).reshape(weights.shape)


def awq(generator):
    bits, group, width = 4, 32, 64
    x = inputs(generator, 48, width)
    matrices = [generator.standard_normal((rows, width)).astype(np.float32) for rows in (10, 6)]
    wide = x.astype(np.float64)
    size = np.abs(wide).mean(0)
    tried = []
    for step in range(20):
        scales = np.maximum(size ** (step / 20), 1e-4)
        scales = scales / np.sqrt(scales.max() * scales.min())
        error = 0.0
        for weights in matrices:
            stored = rounded(weights.astype(np.float64) * scales, bits, group) / scales
            error += ((wide @ (stored - weights).T) ** 2).sum(1).mean()
        tried.append((error, step / 20, scales))
    error, alpha, scales = min(tried, key=lambda it: it[0])
    return {"width": width, "inputs": plain(x), "matrices": [plain(m) for m in matrices], "alpha": alpha,
            "scales": plain(scales), "error": error, "plain_error": tried[0][0]}


def smooth(generator, alpha):
    width = 48
    x = inputs(generator, 24, width)
    matrices = [(generator.standard_normal((rows, width)) * 0.1).astype(np.float32) for rows in (5, 7)]
    weight = np.maximum(np.max([np.abs(m).max(0) for m in matrices], axis=0), 1e-5).astype(np.float64)
    scales = np.maximum(np.abs(x).max(0).astype(np.float64) ** alpha / weight ** (1 - alpha), 1e-5)
    return {"width": width, "alpha": alpha, "inputs": plain(x), "matrices": [plain(m) for m in matrices],
            "scales": plain(scales)}


def gptq(generator):
    """Algorithm 1 of the paper with one scale for all: levels -8 to 7, code 0 being the lowest."""
    width, scale = 64, 0.125
    x = inputs(generator, 128, width)
    weights = (generator.standard_normal((6, width)) * 0.4).astype(np.float32)
    h = x.astype(np.float64).T @ x / len(x)
    h += 0.01 * np.diag(h).mean() * np.eye(width)
    upper = np.linalg.cholesky(np.linalg.inv(h)).T
    left = weights.astype(np.float64)
    codes = np.zeros(weights.shape, int)
    for k in range(width):
        codes[:, k] = np.clip(np.rint(left[:, k] / scale), -8, 7) + 8
        error = (left[:, k] - scale * (codes[:, k] - 8)) / upper[k, k]
        left[:, k + 1:] -= np.outer(error, upper[k, k + 1:])
    return {"width": width, "scale": scale, "inputs": plain(x), "weights": plain(weights), "codes": codes.ravel().tolist()}


def main():
    generator = np.random.default_rng(17)
    found = {
        "hqq": [hqq(generator, 4, 64, 0.05), hqq(generator, 2, 32, 0.05), hqq(generator, 3, 128, 1.0)],
        "awq": awq(generator),
        "smooth": [smooth(generator, 0.5), smooth(generator, 0.8)],
        "gptq": gptq(generator),
    }
    # A case in which nothing is left to find would decide nothing.
    assert 0 < found["awq"]["alpha"] < 0.95 and found["awq"]["error"] < 0.7 * found["awq"]["plain_error"]
    (HERE / "compression.json").write_text(json.dumps(found) + "\n")


main()
