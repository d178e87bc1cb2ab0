"""Trains the decoder of `ounce bench train` with PyTorch: the peer of its table.

    python tests/compare/train_step.py --folder MODEL --tokens TOKENS.bin --steps 8 --threads 2

MODEL is a Llama folder whose weights are the start, TOKENS.bin little-endian 32-bit ids, steps × batch × (context + 1)
of them, which both tools read in the same order. Prints one line of JSON: seconds of each step, losses, and the most
memory in use. Plain PyTorch as a careful user writes it: scaled_dot_product_attention, fused AdamW, no graph breaks.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, heads, kv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        self.heads, self.kv, self.dim = heads, kv, c.get("head_dim") or width // heads
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.self_attn = nn.ModuleDict(dict(q_proj=linear(width, heads * self.dim), k_proj=linear(width, kv * self.dim),
                                            v_proj=linear(width, kv * self.dim), o_proj=linear(heads * self.dim, width)))
        inner = c["intermediate_size"]
        self.mlp = nn.ModuleDict(dict(gate_proj=linear(width, inner), up_proj=linear(width, inner),
                                      down_proj=linear(inner, width)))
        self.input_layernorm = Norm(width, c["rms_norm_eps"])
        self.post_attention_layernorm = Norm(width, c["rms_norm_eps"])

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        h, a, m = self.input_layernorm(x), self.self_attn, self.mlp
        split = lambda y, n: y.view(b, t, n, self.dim).transpose(1, 2)
        q, k, v = split(a["q_proj"](h), self.heads), split(a["k_proj"](h), self.kv), split(a["v_proj"](h), self.kv)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=True,
                                           enable_gqa=self.kv != self.heads)
        x = x + a["o_proj"](y.transpose(1, 2).reshape(b, t, -1))
        h = self.post_attention_layernorm(x)
        return x + m["down_proj"](F.silu(m["gate_proj"](h)) * m["up_proj"](h))


class Llama(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.model = nn.ModuleDict(dict(
            embed_tokens=nn.Embedding(c["vocab_size"], c["hidden_size"]),
            layers=nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"])),
            norm=Norm(c["hidden_size"], c["rms_norm_eps"])))
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        if c["tie_word_embeddings"]:
            self.lm_head.weight = self.model["embed_tokens"].weight
        dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
        theta = c.get("rope_theta") or c["rope_parameters"]["rope_theta"]
        self.radians = theta ** (-torch.arange(0, dim, 2) / dim)

    def forward(self, ids):
        angles = torch.arange(ids.shape[1])[:, None] * self.radians
        cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()
        x = self.model["embed_tokens"](ids)
        for layer in self.model["layers"]:
            x = layer(x, cos, sin)
        return self.lm_head(self.model["norm"](x))


def timed_steps(optimizer, batches, loss_of):
    """A step for each batch, of which `loss_of` gives the loss; prints their seconds, losses and the memory."""
    seconds, losses = [], []
    for batch in batches:
        start = time.perf_counter()
        loss = loss_of(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
    print(json.dumps({"name": f"PyTorch {torch.__version__}", "seconds": seconds, "losses": losses,
                      "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", required=True)
    parser.add_argument("--tokens", required=True)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=0, help="steps in which the learning rate rises from zero")
    parser.add_argument("--bf16", action="store_true", help="autocast to bf16")
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    config = json.load(open(f"{o.folder}/config.json"))
    net = Llama(config)
    tensors = load_file(f"{o.folder}/model.safetensors")
    missing, extra = net.load_state_dict(tensors, strict=False)
    assert not extra and all("lm_head" in name for name in missing), (missing, extra)
    del tensors
    data = np.fromfile(o.tokens, dtype="<u4").astype(np.int64).reshape(-1, o.batch, o.context + 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=o.lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True)

    def batches():
        for step in range(o.steps):
            optimizer.param_groups[0]["lr"] = o.lr * min((step + 1) / max(o.warmup, 1), 1)
            yield torch.from_numpy(data[step % len(data)])

    def loss_of(rows):
        with torch.autocast("cpu", torch.bfloat16, enabled=o.bf16):
            logits = net(rows[:, :-1])
            return F.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), rows[:, 1:].reshape(-1))

    timed_steps(optimizer, batches(), loss_of)


if __name__ == "__main__":
    main()
