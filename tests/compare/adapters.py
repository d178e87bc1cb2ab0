"""Loads adapters that ounce made in Python's peft and compares the logits.

  ounce tune tests/golden/models/llama ...      any base that transformers opens, and its adapters
  python tests/compare/adapters.py OUNCE BASE ADAPTER...

Needs: torch, transformers, peft. Adapters that merge are compared with `ounce logits --adapter`, of all others it is only
said whether peft takes the folder.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

IDS = [(7 * i + 3) % 90 for i in range(24)]


def main():
    ounce, base, *adapters = sys.argv[1:]
    worst = 0.0
    for adapter in adapters:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, adapter).eval()
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([IDS])).logits[0].numpy()[-len(IDS) :]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "logits.npy"
            tokens = ",".join(map(str, IDS))
            command = [ounce, "logits", base, "--adapter", adapter, "--tokens", tokens, "--npy", path, "--mode", "reference"]
            ran = subprocess.run(command, capture_output=True, text=True)
            if ran.returncode:
                print(f"{adapter}: taken by peft; ounce: {ran.stderr.strip()}")
                continue
            ours = numpy.load(path)
        far = abs(ours - theirs).max() / abs(theirs).max()
        worst = max(worst, far)
        print(f"{adapter}: logits differ by {far:.1e} of the largest")
    sys.exit(int(worst > 1e-4))


if __name__ == "__main__":
    main()
