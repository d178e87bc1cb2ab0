"""GPTQ as its authors' PyTorch code does it, timed on one linear layer: what `cargo bench -p ounce-compress --bench gptq`
is set beside. Groups of 128 along the input, 4 bits, asymmetric, damping 0.01, block size 128, no act-order.

    python tests/compare/gptq_speed.py [ROWS COLUMNS]      needs torch
"""

import sys
import time

import torch


def fit(w, levels):
    """Scale and zero point of each row of w."""
    low, high = w.amin(1).clamp(max=0), w.amax(1).clamp(min=0)
    scale = ((high - low) / levels).clamp(min=1e-9)
    return scale, torch.round(-low / scale)


def gptq(weight, hessian, bits=4, group=128, block=128, damping=0.01):
    levels = 2**bits - 1
    w, n = weight.clone(), weight.shape[1]
    h = hessian.clone()
    h.diagonal().add_(damping * h.diagonal().mean())
    h = torch.linalg.cholesky(h)
    h = torch.cholesky_inverse(h)
    inverse = torch.linalg.cholesky(h, upper=True)
    out = torch.zeros_like(w)
    for first in range(0, n, block):
        last = min(first + block, n)
        part, errors = w[:, first:last].clone(), torch.zeros(w.shape[0], last - first)
        own = inverse[first:last, first:last]
        for i in range(last - first):
            if (first + i) % group == 0:
                scale, zero = fit(w[:, first + i : first + i + group], levels)
            column, d = part[:, i], own[i, i]
            q = scale * (torch.clamp(torch.round(column / scale) + zero, 0, levels) - zero)
            out[:, first + i] = q
            error = (column - q) / d
            part[:, i:] -= error.unsqueeze(1).matmul(own[i, i:].unsqueeze(0))
            errors[:, i] = error
        w[:, last:] -= errors.matmul(inverse[first:last, last:])
    return out


def main():
    rows, columns = (int(x) for x in (sys.argv[1:] or ["2048", "2048"]))
    torch.manual_seed(1)
    x = torch.randn(2 * columns, 64) @ torch.randn(64, columns) + 0.3 * torch.randn(2 * columns, columns)
    hessian = x.T @ x / len(x)
    weight = 0.02 * torch.randn(rows, columns)
    gptq(weight[:8], hessian)
    start = time.perf_counter()
    found = gptq(weight, hessian)
    seconds = time.perf_counter() - start
    delta = weight - found
    loss = ((delta @ hessian) * delta).sum() / ((weight @ hessian) * weight).sum()
    print(f"{rows} x {columns}: {seconds:.2f} s, {seconds / rows / columns * 1e9:.0f} s a billion weights, error {loss:.2e}")


if __name__ == "__main__":
    main()
