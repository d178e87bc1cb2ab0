"""Makes preferences.json: losses of choices between answers and their gradients, by PyTorch's autograd in float64.

Run from anywhere:  python tests/golden/preferences.py
Needs: torch.

It holds logits of four sequences (two choices, the better answer first), targets, the log-probabilities that the reference
gives the sequences, and for each beta the losses' sum and its gradient by the logits.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

torch.manual_seed(7)
LENGTHS, WIDTH, IGNORE = [5, 3, 4, 6], 7, -100


def log_probability(logits, targets):
    rows = torch.tensor([target != IGNORE for target in targets])
    chosen = torch.tensor([max(target, 0) for target in targets])
    each = F.log_softmax(logits, dim=-1).gather(1, chosen[:, None])[:, 0]
    return each[rows].sum()


def main():
    # Exact in float32, which ounce computes in.
    logits = (2 * torch.randn(sum(LENGTHS), WIDTH)).double()
    # The first tokens of each sequence are the question.
    targets = [
        [IGNORE if at < 1 + length // 3 else int(torch.randint(WIDTH, ())) for at in range(length)]
        for length in LENGTHS
    ]
    start = (logits + 0.3 * torch.randn_like(logits)).split(LENGTHS)
    reference = [float(log_probability(rows, own)) for rows, own in zip(start, targets)]
    cases = []
    for beta in [0.1, 0.5, 3.0]:
        x = logits.clone().requires_grad_()
        own = [log_probability(rows, t) for rows, t in zip(x.split(LENGTHS), targets)]
        gains = [value - known for value, known in zip(own, reference)]
        margins = [beta * (gains[i] - gains[i + 1]) for i in (0, 2)]
        loss = sum(-F.logsigmoid(margin) for margin in margins)
        loss.backward()
        cases.append({
            "beta": beta,
            "loss": loss.item(),
            "margins": [margin.item() for margin in margins],
            "gradient": x.grad.flatten().tolist(),
        })
    golden = {
        "lengths": LENGTHS,
        "width": WIDTH,
        "logits": logits.flatten().tolist(),
        "targets": [target for own in targets for target in own],
        "reference": reference,
        "log_probabilities": [value.item() for value in own],
        "cases": cases,
    }
    Path(__file__).with_name("preferences.json").write_text(json.dumps(golden) + "\n")


main()
