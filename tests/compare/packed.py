"""Loads folders that `ounce convert` packed with transformers and compares logits with those of the weights decoded to F32.

    pip install "transformers==5.24.*" torch "compressed-tensors==0.20.*" "gptqmodel==7.7.*" optimum
    python tests/compare/packed.py target/release/ounce

Goes in: the golden models below, which are small. Comes out: a line for each, with the largest difference between the logits
that transformers computes from the packed folder and from the same model written with `--dtype f32`, whose weights are rounded
to the type of the scales first, in which the libraries decode. More than 1e-3 of their root mean square ends the script with
an error. The weights that gptqmodel decodes must be those of the other folder, rounded so, exactly.

compressed-tensors are loaded with `dequantize=True`: without it transformers 5.24 expects zero points of another shape than
compressed-tensors 0.20 itself packs, and refuses what that library wrote, too.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [
    (GOLDEN / "quantized" / "compressed_4", ["--packing", "compressed-tensors"]),
    (GOLDEN / "quantized" / "compressed_4_asymmetric", ["--packing", "compressed-tensors"]),
    (GOLDEN / "quantized" / "gptq_8_row", []),
    (GOLDEN / "quantized" / "compressed_3", []),
    (GOLDEN / "quantized" / "compressed_2", []),
    (GOLDEN / "quantized" / "awq_32", []),
    (GOLDEN / "models" / "llama", ["--dtype", "g4_32"]),
    (GOLDEN / "models" / "qwen3", ["--dtype", "g8_32"]),
    (GOLDEN / "quantized" / "compressed_4", ["--packing", "gptq"]),
    (GOLDEN / "quantized" / "awq_32", ["--packing", "gptq"]),
    (GOLDEN / "quantized" / "gptq_2", ["--packing", "gptq"]),
    (GOLDEN / "quantized" / "gptq_3", ["--packing", "gptq"]),
    (GOLDEN / "quantized" / "gptq_3_v2", ["--packing", "gptq"]),
    (GOLDEN / "quantized" / "compressed_4_f32", ["--dtype", "g8_64", "--packing", "gptq"]),
]


def logits(folder, packed=None, **options):
    model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    if packed:
        tensors = load_file(packed / "model.safetensors")
        for name, scales in tensors.items():
            for end in [".weight_scale", ".scales"]:
                if name.endswith(end):
                    weight = model.get_submodule(name.removesuffix(end)).weight
                    weight.data = weight.data.to(scales.dtype).to(weight.dtype)
    ids = torch.arange(16).remainder(model.config.vocab_size)[None]
    with torch.no_grad():
        return model(ids).logits[0].float()


def differing_weights(packed, plain):
    """How many weights gptqmodel decodes to something else than the other folder holds, rounded to F16."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import FORMAT
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    config = json.loads((packed / "config.json").read_text())["quantization_config"]
    tensors, plain = load_file(packed / "model.safetensors"), load_file(plain / "model.safetensors")
    differing = count = 0
    for name in [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]:
        rows, columns = plain[f"{name}.weight"].shape
        module = TorchLinear(bits=config["bits"], group_size=config["group_size"], sym=config["sym"], desc_act=False,
                             in_features=columns, out_features=rows, bias=False, format=FORMAT.GPTQ_V2)
        for part in ["qweight", "qzeros", "scales", "g_idx"]:
            assert getattr(module, part).shape == tensors[f"{name}.{part}"].shape, f"{name}.{part}"
            module.register_buffer(part, tensors[f"{name}.{part}"])
        if config["checkpoint_format"] == "gptq":
            convert_gptq_v1_to_v2_format_module(module, bits=config["bits"], pack_dtype=torch.int32)
        decoded = type(module).__mro__[1].dequantize_weight(module).T
        differing += int((decoded != plain[f"{name}.weight"].half()).sum())
        count += 1
    assert count, "no packed weight"
    return differing


def main():
    ounce = sys.argv[1]
    failed = 0
    for source, options in CASES:
        name = f"{source.name} {' '.join(options)}"
        try:
            with tempfile.TemporaryDirectory() as folder:
                packed, plain = Path(folder) / "packed", Path(folder) / "plain"
                subprocess.run([ounce, "convert", source, packed, *options], check=True, capture_output=True)
                subprocess.run([ounce, "convert", packed, plain, "--dtype", "f32"], check=True, capture_output=True)
                expected = logits(plain, packed, dtype=torch.float32)
                if "gptq" in options:
                    differing = differing_weights(packed, plain)
                    found = logits(packed, dtype=torch.float32)
                else:
                    differing = 0
                    dense = CompressedTensorsConfig(dequantize=True)
                    found = logits(packed, dtype=torch.float32, quantization_config=dense)
            scale = expected.square().mean().sqrt()
            difference = float((found - expected).abs().max() / scale)
            failed += not difference <= 1e-3 or differing > 0
            print(f"{name:60} {difference:.1e} {f'{differing} weights differ' if differing else ''}", flush=True)
        except Exception as error:
            failed += 1
            print(f"{name:60} {type(error).__name__}: {str(error)[:300]}", flush=True)
    sys.exit(f"{failed} of {len(CASES)} differ" if failed else 0)


if __name__ == "__main__":
    main()
