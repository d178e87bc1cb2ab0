"""Makes the golden quantized checkpoints: tiny Llamas whose linear layers are packed by the libraries' own packers.

    python -m venv .venv
    .venv/bin/pip install "transformers==5.24.*" torch safetensors numpy "compressed-tensors==0.20.*" "gptqmodel==7.7.*" \
        "bitsandbytes==0.50.*"
    pip download --no-deps autoawq==0.2.9 && tar xzf autoawq-0.2.9.tar.gz   # only its packing code is used
    AUTOAWQ=autoawq-0.2.9 .venv/bin/python tests/golden/quantized.py [case ...]

Comes out, for each case, a folder `quantized/<name>/`: `config.json`, `model.safetensors` as the tools write them, and
`golden.safetensors` with what the library decodes of two weights (`k_proj`, `down_proj`, in its own type) and with the logits
that transformers computes in float32 from all weights decoded in float32.
"""

import json
import os
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent / "quantized"
SETTINGS = dict(vocab_size=48, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2,
                num_key_value_heads=1, head_dim=32, max_position_embeddings=64, tie_word_embeddings=True,
                bos_token_id=0, eos_token_id=1)
KEPT = ["k_proj", "down_proj"]


def grid(weight, bits, group, symmetric, generator):
    """Scales, zero points (unsigned) and codes of a weight by its groups' extremes: [out, groups], [out, groups], [out, in]."""
    out, columns = weight.shape
    grouped = weight.reshape(out, columns // group, group)
    top = 2**bits - 1
    if symmetric:
        scale = grouped.abs().amax(-1) / (2 ** (bits - 1))
        zero = torch.full_like(scale, 2 ** (bits - 1))
    else:
        low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
        scale = (high - low) / top
        zero = torch.round(-low / scale).clamp(0, top)
        # Zero points at both ends of their range happen; they are where packers go wrong.
        zero[0, 0], zero[1, 0] = 0, top
    return scale, zero


def gptq(weight, name, generator, bits=4, group=32, symmetric=True, version=1, order=None):
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import FORMAT
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    out, columns = weight.shape
    size = columns if group == -1 else group
    scale, zero = grid(weight, bits, size, symmetric, generator)
    index = torch.arange(columns) // size
    if order == "scattered":
        index = index[torch.randperm(columns, generator=generator)]
    elif order == "runs":
        index = (columns // size - 1) - index
    scale = scale.half().float()
    linear = torch.nn.Linear(columns, out, bias=False)
    linear.weight.data = weight.clone()
    module = TorchLinear(bits=bits, group_size=group, sym=symmetric, desc_act=order is not None, in_features=columns,
                         out_features=out, bias=False, format=FORMAT.GPTQ_V2)
    module.pack_original(linear, scale, zero, index.to(torch.int32))
    module.post_init = None
    decode = type(module).__mro__[1].dequantize_weight
    with torch.no_grad():
        decoded = decode(module).T.contiguous()
        half = module.scales
        module.scales = half.float()
        exact = decode(module).T.contiguous()
        module.scales = half
    if version == 1:
        module.qzero_format(format=2)
        convert_gptq_v2_to_v1_format_module(module, quantize_config=types.SimpleNamespace(
            bits=bits, pack_dtype=torch.int32, runtime_bits=bits))
    tensors = {"qweight": module.qweight, "qzeros": module.qzeros, "scales": module.scales, "g_idx": module.g_idx}
    return {f"{name}.{key}": value.contiguous() for key, value in tensors.items()}, decoded, exact


def gptq_config(bits=4, group=32, symmetric=True, version=1, order=None):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": order is not None,
            "checkpoint_format": "gptq" if version == 1 else "gptq_v2", "pack_dtype": "int32", "lm_head": False,
            "damp_percent": 0.01, "true_sequential": True, "static_groups": False}


def awq(weight, name, generator, group=32):
    folder = os.environ["AUTOAWQ"]
    for package in ["awq", "awq.utils", "awq.modules", "awq.modules.linear"]:
        stub = types.ModuleType(package)
        stub.__path__ = [os.path.join(folder, package.replace(".", "/"))]
        sys.modules.setdefault(package, stub)
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import dequantize_gemm

    scale, zero = grid(weight, 4, group, False, generator)
    scale = scale.half().float()
    # The packer does not clamp: weights are brought to the grid first.
    repeat = lambda x: x.repeat_interleave(group, 1)
    codes = (torch.round(weight / repeat(scale)) + repeat(zero)).clamp(0, 15)
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = (codes - repeat(zero)) * repeat(scale)
    module = WQLinear_GEMM.from_linear(linear, 4, group, scales=scale.T.contiguous(), zeros=zero.T.contiguous())
    decode = lambda scales: dequantize_gemm(module.qweight, module.qzeros, scales, 4, group).T.contiguous()
    tensors = {"qweight": module.qweight, "qzeros": module.qzeros, "scales": module.scales}
    tensors = {f"{name}.{key}": value.contiguous() for key, value in tensors.items()}
    return tensors, decode(module.scales), decode(module.scales.float())


def awq_config(group=32):
    return {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": None}


def scheme(bits, group, symmetric, kind, strategy):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    arguments = QuantizationArgs(num_bits=bits, type=kind, symmetric=symmetric, strategy=strategy,
                                 group_size=group if strategy == "group" else None)
    return QuantizationScheme(targets=["Linear"], weights=arguments)


def compressed(weight, name, generator, bits=4, group=32, symmetric=True, kind="int", strategy="group", packed=True,
               dtype=torch.float16):
    from compressed_tensors.compressors.naive_quantized import NaiveQuantizationCompressor
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor

    how = scheme(bits, group, symmetric, kind, strategy)
    columns = weight.shape[1]
    if kind == "float":
        extreme = weight.abs().amax() if strategy == "tensor" else weight.abs().amax(1, keepdim=True)
        state = {"weight_scale": (extreme / 448).reshape(-1 if strategy == "tensor" else extreme.shape).to(dtype)}
    else:
        size = group if strategy == "group" else columns
        scale, zero = grid(weight, bits, size, symmetric, generator)
        state = {"weight_scale": scale.to(dtype)}
        if not symmetric:
            state["weight_zero_point"] = (zero - 2 ** (bits - 1)).to(torch.int8)
    compressor = PackedQuantizationCompressor if packed else NaiveQuantizationCompressor
    state["weight"] = weight.to(dtype)
    tensors = compressor.compress(state, how)
    decoded = compressor.decompress(dict(tensors), how)["weight"]
    wide = dict(tensors)
    wide["weight_scale"] = wide["weight_scale"].float()
    exact = compressor.decompress(wide, how)["weight"].float()
    return {f"{name}.{key}": value.contiguous() for key, value in tensors.items()}, decoded.to(dtype), exact


def compressed_config(bits=4, group=32, symmetric=True, kind="int", strategy="group", packed=True, dtype=None):
    arguments = scheme(bits, group, symmetric, kind, strategy).weights.model_dump(mode="json")
    format_ = "pack-quantized" if packed else f"{kind}-quantized"
    return {"quant_method": "compressed-tensors", "format": format_, "quantization_status": "compressed",
            "ignore": ["lm_head"], "kv_cache_scheme": None, "global_compression_ratio": None,
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": arguments, "input_activations": None,
                                          "output_activations": None, "format": format_}}}


def compressed_order(weight, name, generator, bits=4, group=32):
    """Act-order, which newer releases no longer read: written from the description of the format."""
    tensors, _, _ = compressed(weight, name, generator, bits, group)
    index = (torch.arange(weight.shape[1]) // group)[torch.randperm(weight.shape[1], generator=generator)]
    tensors[f"{name}.weight_g_idx"] = index.to(torch.int32)
    words = tensors[f"{name}.weight_packed"].numpy().view(np.uint32)
    codes = np.stack([words >> (4 * k) & 15 for k in range(8)], -1).reshape(weight.shape).astype(np.int32) - 8
    scale = tensors[f"{name}.weight_scale"][:, index]
    codes = torch.from_numpy(codes)
    return tensors, scale * codes.half(), scale.float() * codes


def mxfp4(weight, name, generator, dtype=torch.bfloat16):
    from compressed_tensors.compressors.mxfp4 import MXFP4PackedCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    arguments = QuantizationArgs(num_bits=4, type="float", strategy="group", group_size=32, scale_dtype=torch.uint8)
    how = QuantizationScheme(targets=["Linear"], weights=arguments)
    extreme = weight.reshape(weight.shape[0], -1, 32).abs().amax(-1)
    state = {"weight": weight.to(dtype), "weight_scale": 2.0 ** (torch.floor(torch.log2(extreme)) - 2).to(dtype)}
    tensors = MXFP4PackedCompressor.compress(state, how)
    decoded = MXFP4PackedCompressor.decompress(dict(tensors), how)["weight"]
    return {f"{name}.{key}": value.contiguous() for key, value in tensors.items()}, decoded.to(dtype), decoded.float()


def mxfp4_config(dtype=None):
    arguments = {"num_bits": 4, "type": "float", "symmetric": True, "group_size": 32, "strategy": "group", "dynamic": False,
                 "scale_dtype": "torch.uint8"}
    format_ = "mxfp4-pack-quantized"
    return {"quant_method": "compressed-tensors", "format": format_, "quantization_status": "compressed",
            "ignore": ["lm_head"], "kv_cache_scheme": None, "global_compression_ratio": None,
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": arguments, "input_activations": None,
                                          "output_activations": None, "format": format_}}}


def bitsandbytes(weight, name, generator, kind="nf4", double=False, dtype=torch.float16):
    import bitsandbytes.functional as functional

    codes, state = functional.quantize_4bit(weight.to(dtype), quant_type=kind, blocksize=64, compress_statistics=double)
    decoded = functional.dequantize_4bit(codes, state)
    tensors = {f"{name}.weight": codes}
    tensors.update({f"{name}.weight.{key}": value for key, value in state.as_dict(packed=True).items()})
    return tensors, decoded, decoded.float()


def bitsandbytes_config(kind="nf4", double=False, dtype=torch.float16):
    return {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": kind,
            "bnb_4bit_use_double_quant": double, "bnb_4bit_compute_dtype": str(dtype).removeprefix("torch."),
            "bnb_4bit_quant_storage": "uint8", "_load_in_4bit": True, "_load_in_8bit": False}


CASES = {
    "gptq_4": (gptq, gptq_config, {}),
    "gptq_4_asymmetric": (gptq, gptq_config, dict(symmetric=False)),
    "gptq_4_v2": (gptq, gptq_config, dict(group=64, symmetric=False, version=2)),
    "gptq_3": (gptq, gptq_config, dict(bits=3)),
    "gptq_3_v2": (gptq, gptq_config, dict(bits=3, symmetric=False, version=2)),
    "gptq_2": (gptq, gptq_config, dict(bits=2, symmetric=False)),
    "gptq_8_row": (gptq, gptq_config, dict(bits=8, group=-1)),
    "gptq_4_scattered": (gptq, gptq_config, dict(order="scattered")),
    "gptq_4_runs": (gptq, gptq_config, dict(order="runs", symmetric=False, version=2)),
    "awq_32": (awq, awq_config, {}),
    "awq_64": (awq, awq_config, dict(group=64)),
    "compressed_4": (compressed, compressed_config, {}),
    "compressed_4_asymmetric": (compressed, compressed_config, dict(group=64, symmetric=False, dtype=torch.bfloat16)),
    "compressed_8_row": (compressed, compressed_config, dict(bits=8, strategy="channel", symmetric=False)),
    "compressed_3": (compressed, compressed_config, dict(bits=3, symmetric=False)),
    "compressed_2": (compressed, compressed_config, dict(bits=2)),
    "compressed_5": (compressed, compressed_config, dict(bits=5)),
    "compressed_4_f32": (compressed, compressed_config, dict(dtype=torch.float32)),
    "compressed_4_order": (compressed_order, compressed_config, {}),
    "compressed_int8": (compressed, compressed_config, dict(bits=8, strategy="channel", packed=False)),
    "compressed_f8_row": (compressed, compressed_config,
                          dict(bits=8, kind="float", strategy="channel", packed=False, dtype=torch.bfloat16)),
    "compressed_f8": (compressed, compressed_config, dict(bits=8, kind="float", strategy="tensor", packed=False)),
    "compressed_mxfp4": (mxfp4, mxfp4_config, {}),
    "bnb_nf4": (bitsandbytes, bitsandbytes_config, {}),
    "bnb_nf4_double": (bitsandbytes, bitsandbytes_config, dict(double=True, dtype=torch.bfloat16)),
    "bnb_fp4": (bitsandbytes, bitsandbytes_config, dict(kind="fp4")),
}


def make(name):
    pack, describe, options = CASES[name]
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    config = LlamaConfig(**SETTINGS)
    model = LlamaForCausalLM(config).eval()
    dtype = options.get("dtype", torch.float16)
    tensors, golden = {}, {}
    for key, value in model.state_dict().items():
        if key == "lm_head.weight":
            continue
        gain = 1.4 / value.shape[-1] ** 0.5 if "proj" in key else 1.0
        weight = torch.randn(value.shape, generator=generator) * gain
        if value.ndim == 1:
            weight = 1 + 0.3 * weight
        if "proj" in key:
            module = key.removesuffix(".weight")
            parts, decoded, exact = pack(weight, module, generator, **options)
            tensors.update(parts)
            if any(kept in key for kept in KEPT):
                golden[key] = decoded.contiguous()
            value.copy_(exact)
        else:
            tensors[key] = weight.to(dtype)
            value.copy_(tensors[key].float())
    ids = torch.randint(config.vocab_size, (1, 16), generator=generator)
    with torch.no_grad():
        golden["logits"] = model(ids).logits[0].contiguous()
    golden["ids"] = ids[0].to(torch.int32)
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SETTINGS, "rms_norm_eps": 1e-6,
                "hidden_act": "silu", "rope_theta": 10000.0, "torch_dtype": str(dtype).removeprefix("torch."),
                "quantization_config": describe(**options)}
    (folder / "config.json").write_text(json.dumps(settings, indent=1) + "\n")
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(golden, folder / "golden.safetensors")
    print(name, "written,", sum(file.stat().st_size for file in folder.iterdir()), "bytes")


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        make(case)
