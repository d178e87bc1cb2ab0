"""Loads folders that `ounce convert` wrote in 8-bit floats, in MXFP4 and in NF4 with transformers, and compares logits with ounce's.

    pip install "transformers==5.24.*" torch "compressed-tensors==0.20.*" "bitsandbytes==0.50.*" accelerate
    python tests/compare/narrow.py target/release/ounce

Goes in: the golden models below for 8-bit floats, and random models of transformers for NF4 whose rows are whole blocks, since
bitsandbytes 0.50 decodes others wrongly on the processor. Comes out: a line for each, with the largest difference between the logits
that transformers computes from the folder and those of `ounce logits`, as a share of their root mean square; more than 1e-3 ends
the script with an error. For NF4 also how many bytes of codes and magnitudes bitsandbytes itself would have chosen otherwise,
and how many weights ounce decodes to other values than bitsandbytes does.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, LlamaConfig, LlamaForCausalLM

MODELS = Path(__file__).parents[1] / "golden" / "models"
FLOATS = ["llama", "llama_tied", "qwen3", "gemma2", "phi3"]
RANDOM = ["float32", "bfloat16"]


def random_model(dtype, folder):
    """A Llama whose rows are whole blocks of NF4."""
    torch.manual_seed(7)
    config = LlamaConfig(vocab_size=256, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.1)
    LlamaForCausalLM(config).to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def ounce_logits(ounce, folder, ids):
    path = folder / "logits.npy"
    text = ",".join(str(id) for id in ids)
    subprocess.run([ounce, "logits", folder, "--tokens", text, "--mode", "reference", "--npy", path], check=True,
                   capture_output=True)
    return torch.from_numpy(np.load(path)).float().reshape(len(ids), -1)


def nf4_differences(original, packed, plain):
    """Bytes and weights for which bitsandbytes has others."""
    before, narrow, decoded = (load_file(folder / "model.safetensors") for folder in (original, packed, plain))
    bytes_differ = weights_differ = count = 0
    for name in [name.removesuffix(".absmax") for name in narrow if name.endswith(".absmax")]:
        weight = before[name].float()
        codes, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
        assert torch.equal(narrow[f"{name}.quant_map"], state.code), name
        bytes_differ += int((codes.flatten() != narrow[name].flatten()).sum())
        bytes_differ += int((state.absmax != narrow[f"{name}.absmax"]).sum())
        codes, state.absmax = narrow[name], narrow[f"{name}.absmax"]
        # As the model's type has it.
        theirs = bnb.dequantize_4bit(codes, state).to(before[name].dtype).float()
        weights_differ += int((theirs != decoded[name]).sum())
        count += weight.numel()
    assert count, "no packed weight"
    return bytes_differ, weights_differ


def main():
    ounce = sys.argv[1]
    failed = 0
    cases = [(name, ["--dtype", "f8_e4m3"]) for name in FLOATS]
    cases += [("llama", ["--dtype", "f8_e4m3", "--packing", "matrix-floats"]), ("llama", ["--dtype", "mxfp4"])]
    cases += [(dtype, ["--packing", "nf4"]) for dtype in RANDOM]
    for name, options in cases:
        title = f"{name} {' '.join(options)}"
        nf4 = "nf4" in options
        try:
            with tempfile.TemporaryDirectory() as folder:
                folder = Path(folder)
                source = random_model(name, folder / "random") if nf4 else MODELS / name
                packed, plain = folder / "packed", folder / "plain"
                subprocess.run([ounce, "convert", source, packed, *options], check=True, capture_output=True)
                subprocess.run([ounce, "convert", packed, plain, "--dtype", "f32"], check=True, capture_output=True)
                vocabulary = json.loads((packed / "config.json").read_text())["vocab_size"]
                ids = [id % vocabulary for id in range(16)]
                notes, how = "", {}
                if nf4:
                    notes = "%d bytes, %d weights differ" % nf4_differences(source, packed, plain)
                    failed += notes != "0 bytes, 0 weights differ"
                else:
                    how["quantization_config"] = CompressedTensorsConfig(dequantize=True)
                model = AutoModelForCausalLM.from_pretrained(packed, dtype=torch.float32, **how).eval()
                if nf4:
                    # The processor's own product of bitsandbytes 0.50 rounds inputs: a layer is off by a hundredth.
                    model = model.dequantize().float()
                with torch.no_grad():
                    found = model(torch.tensor([ids])).logits[0].float()
                expected = ounce_logits(ounce, packed, ids)
            difference = float((found - expected).abs().max() / expected.square().mean().sqrt())
            failed += not difference <= 1e-3
            print(f"{title:40} {difference:.1e} {notes}", flush=True)
        except Exception as error:
            failed += 1
            print(f"{title:40} {type(error).__name__}: {str(error)[:300]}", flush=True)
    sys.exit(f"{failed} differ" if failed else 0)


if __name__ == "__main__":
    main()
