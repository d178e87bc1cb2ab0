"""Makes the golden gradients: what PyTorch's autograd gives for the golden models of `make.py`.

    .venv/bin/python tests/golden/gradients.py               # all, half a minute on two cores

Goes in: the folders `models/<name>/`. Comes out `gradients/<name>.safetensors`: the gradient of the summed
cross-entropy of one batch, under the names and in the layout in which the model's own tensors are stored, times
`SCALE`, in float16; the loss is in the file's metadata. The batch is two sequences, the first 40 and the last 24 of
the golden ids, each predicting its next token (masked language models: the token itself), every seventh target left out.
"""

import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cases import CASES
from make import load

SCALE = 16.0
CUTS = [(0, 40), (40, 64)]
# One of each kind of layer; what differs only in how files are laid out is not repeated.
NAMES = """llama llama_tied llama_bias llama_rope_dynamic gemma2 gemma3 qwen2_window qwen3 phi3 gpt2 gpt_neox
gpt_neox_sequential smollm3 granite olmo2 stablelm stablelm_parallel mixtral qwen2_moe qwen3_moe bert_mlm roberta_mlm
distilbert_mlm albert_mlm""".split()


def main():
    here = Path(__file__).parent
    (here / "gradients").mkdir(exist_ok=True)
    cases = {case.name: case for case in CASES}
    for name in sys.argv[1:] or NAMES:
        case, folder = cases[name], here / "models" / name
        model = load(case, folder)
        golden = load_file(folder / "golden.safetensors")
        ids = golden["input_ids"].long()
        masked = "Masked" in type(model).__name__
        total = torch.zeros((), dtype=torch.float64)
        for start, end in CUTS:
            own = ids[start:end]
            targets = own.clone() if masked else own[1:].clone()
            inputs = {"input_ids": (own if masked else own[:-1])[None]}
            if "token_type_ids" in golden:
                inputs["token_type_ids"] = golden["token_type_ids"][start:end].long()[None]
            targets[torch.arange(len(targets)) % 7 == 3] = -100
            logits = model(**inputs).logits[0]
            loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=-100, reduction="sum")
            loss.backward()
            total += loss.detach().double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad * SCALE)
        with tempfile.TemporaryDirectory() as out:
            model.save_pretrained(out, **{k: v for k, v in case.save.items() if k != "max_shard_size"})
            tensors = load_file(Path(out) / "model.safetensors")
        stored = {key: tensor.half().contiguous() for key, tensor in tensors.items()}
        assert all(torch.isfinite(tensor).all() for tensor in stored.values()), name
        save_file(stored, here / "gradients" / f"{name}.safetensors",
                  metadata={"format": "pt", "loss": repr(total.item()), "scale": repr(SCALE)})
        largest = max(tensor.abs().max().item() for tensor in tensors.values()) / SCALE
        print(f"{name}: loss {total.item():.6f}, largest gradient {largest:.3f}")


if __name__ == "__main__":
    main()
