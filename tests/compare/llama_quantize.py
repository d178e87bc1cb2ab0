#!/usr/bin/env python3
"""llama-quantize for files below three bits, where only the package xllamacpp is at hand: ggml's own quantizers, called through
ctypes, with llama.cpp's choice of a type for each tensor.

    pip install xllamacpp gguf numpy
    ounce bench frontier MODEL --against llama-quantize=tests/compare/llama_quantize.py --peer-types IQ2_XXS,IQ2_XS,IQ2_S,IQ2_M

Goes in: an F32 file and an importance matrix, as for llama-quantize: [--imatrix FILE] IN OUT TYPE. Comes out: OUT. The choice of
types follows `llama_tensor_get_type` in llama.cpp's src/llama-quant.cpp for models without experts; files have the same bits a
weight as those of llama-quantize 0.3.36 that docs/quantization.md lists.
"""

import argparse
import ctypes
import pathlib

import gguf
import numpy as np
import xllamacpp
from gguf.constants import GGML_QUANT_SIZES
from gguf.constants import GGMLQuantizationType as Type

BASES = {"IQ2_XXS": Type.IQ2_XXS, "IQ2_XS": Type.IQ2_XS, "IQ2_S": Type.IQ2_XS, "IQ2_M": Type.IQ2_S}
FILE_TYPES = {"IQ2_XXS": 19, "IQ2_XS": 20, "IQ2_S": 28, "IQ2_M": 29}

ggml = ctypes.CDLL(str(next(pathlib.Path(xllamacpp.__file__).parent.glob("xllamacpp*.so"))))
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t


def choose(name, kind, tied, layers, sharing):
    """The type of a matrix; `sharing` query heads have one key/value head."""
    better = kind in ("IQ2_S", "IQ2_M")
    part = name.split(".")[-2]
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return Type.Q5_K
    if name == "token_embd.weight":
        return Type.IQ3_S if better else Type.Q2_K
    if part == "attn_v":
        return Type.Q4_K if sharing >= 4 else Type.IQ3_S if better else Type.Q2_K
    if part == "ffn_down" and int(name.split(".")[1]) < layers // 8:
        return Type.IQ3_S if better else Type.Q2_K
    if part == "attn_output" and better:
        return Type.IQ3_S
    return BASES[kind]


def quantize(values, kind, importance):
    _, size = GGML_QUANT_SIZES[kind]
    rows, columns = values.shape
    out = np.zeros((rows, columns // 256 * size), np.uint8)
    weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
    pointer = lambda array: None if array is None else array.ctypes.data_as(ctypes.c_void_p)
    written = ggml.ggml_quantize_chunk(ctypes.c_int(kind), pointer(values), pointer(out), ctypes.c_int64(0),
                                       ctypes.c_int64(rows), ctypes.c_int64(columns), pointer(weights))
    assert written == out.size, kind
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--imatrix")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("type", choices=BASES)
    options = parser.parse_args()
    reader = gguf.GGUFReader(options.source)
    sums = {}
    if options.imatrix:
        found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(options.imatrix).tensors}
        for name in [name.removesuffix(".in_sum2") for name in found if name.endswith(".in_sum2")]:
            sums[name] = found[f"{name}.in_sum2"].ravel() / found[f"{name}.counts"].ravel()[0]
    field = lambda name: reader.get_field(name).contents()
    arch = field("general.architecture")
    layers = field(f"{arch}.block_count")
    sharing = field(f"{arch}.attention.head_count") // field(f"{arch}.attention.head_count_kv")
    tied = not any(tensor.name == "output.weight" for tensor in reader.tensors)
    writer = gguf.GGUFWriter(options.target, arch)
    for name, entry in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            sub = entry.types[-1] if entry.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, entry.contents(), entry.types[0], sub)
    writer.add_file_type(FILE_TYPES[options.type])
    for tensor in reader.tensors:
        values = np.array(tensor.data, np.float32)
        if values.ndim < 2 or "_norm." in tensor.name:
            writer.add_tensor(tensor.name, values)
            continue
        kind = choose(tensor.name, options.type, tied, layers, sharing)
        importance = sums.get(tensor.name)
        if importance is None and tied and tensor.name == "token_embd.weight":
            importance = sums.get("output.weight")
        writer.add_tensor(tensor.name, quantize(values, kind, importance), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()
