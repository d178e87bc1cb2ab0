"""Makes optimizers.json: parameters after each of ten steps of PyTorch's optimizers, and the 8-bit optimizers' numbers.

Run from anywhere:  python tests/golden/optimizers.py
Needs: torch (2.9 or later, for Muon), bitsandbytes.

All optimizers step the same 54 parameters with the same gradients, a matrix of 6 x 9 or 9 x 6 for Muon. Muon's
iteration runs in f32 here: PyTorch's own function with its bfloat16 replaced, so that results can be compared closely.
Lion, which PyTorch lacks, is the update of the paper's algorithm 2, written out in torch operations.
"""

import inspect
import json
import pathlib

import torch
from bitsandbytes.functional import create_dynamic_map
from torch.optim import _muon

OUT = pathlib.Path(__file__).parent / "optimizers.json"
STEPS, COUNT = 10, 54

source = inspect.getsource(_muon._zeropower_via_newtonschulz)
assert "torch.bfloat16" in source
exec(source.replace("torch.bfloat16", "torch.float32"), vars(_muon))


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr, beta1, beta2, weight_decay):
        super().__init__(params, dict(lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                c = group["beta1"] * m + (1 - group["beta1"]) * p.grad
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * torch.sign(c))
                m.mul_(group["beta2"]).add_(p.grad, alpha=1 - group["beta2"])


def adamw(params, beta1, beta2, **options):
    return torch.optim.AdamW(params, betas=(beta1, beta2), foreach=False, fused=False, **options)


def muon(params, rows, columns, **options):
    return torch.optim.Muon(params, **options)


generator = torch.Generator().manual_seed(20240607)
start = torch.randn(COUNT, generator=generator)
grads = [torch.randn(COUNT, generator=generator) * 0.5**step for step in range(STEPS)]


def case(make, **options):
    shape = (options["rows"], options["columns"]) if "rows" in options else (COUNT,)
    parameter = torch.nn.Parameter(start.clone().reshape(shape))
    optimizer = make([parameter], **options)
    after = []
    for grad in grads:
        parameter.grad = grad.reshape(shape)
        optimizer.step()
        after.append(parameter.detach().flatten().tolist())
    return {"options": options, "after": after}


golden = {
    "start": start.tolist(),
    "grads": [grad.tolist() for grad in grads],
    "adamw": [
        case(adamw, lr=1e-2, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.1),
        case(adamw, lr=0.3, beta1=0.8, beta2=0.95, eps=1e-3, weight_decay=0.0),
    ],
    "sgd": [
        case(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        case(torch.optim.SGD, lr=0.1, momentum=0.8, nesterov=False, weight_decay=0.0),
        case(torch.optim.SGD, lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.1),
    ],
    "lion": [case(Lion, lr=0.01, beta1=0.9, beta2=0.99, weight_decay=0.1)],
    "muon": [
        case(muon, rows=6, columns=9, lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.1),
        case(muon, rows=9, columns=6, lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.1),
        case(muon, rows=9, columns=6, lr=0.02, momentum=0.9, nesterov=False, weight_decay=0.0,
             adjust_lr_fn="match_rms_adamw"),
    ],
    "numbers": {
        "signed": create_dynamic_map(signed=True).tolist(),
        "unsigned": create_dynamic_map(signed=False).tolist(),
    },
}
OUT.write_text(json.dumps(golden) + "\n")
