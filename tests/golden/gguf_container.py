"""Makes the golden files in gguf/ with the gguf package: the container, no model that could run.

Run from anywhere:  python tests/golden/gguf_container.py
Needs: numpy, gguf.

  all.gguf                         every metadata kind, alone and in arrays, nested arrays, alignment 64, every tensor
                                   type that ounce reads, shapes of one to four dimensions; byte i of a tensor's data
                                   is (7 i + number of the tensor) mod 251
  parts-0000K-of-00003.gguf        five F32 tensors t0..t4 of 8 values, tensor k filled with k, in three files
  big_endian.gguf                  a file for other machines
"""

import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Kind

OUT = pathlib.Path(__file__).parent / "gguf"
SINGLE = {
    Kind.UINT8: 200, Kind.INT8: -100, Kind.UINT16: 60000, Kind.INT16: -30000,
    Kind.UINT32: 4000000000, Kind.INT32: -2000000000, Kind.FLOAT32: 0.1, Kind.BOOL: True,
    Kind.STRING: "żółw 🐢", Kind.UINT64: 2**64 - 1, Kind.INT64: -(2**63), Kind.FLOAT64: 0.1,
}
TYPES = ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
         "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8", "I16", "I32", "I64", "F64",
         "IQ1_M", "BF16", "TQ1_0", "TQ2_0", "MXFP4"]


def finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def everything() -> None:
    writer = gguf.GGUFWriter(OUT / "all.gguf", "none")
    writer.add_custom_alignment(64)
    for kind, value in SINGLE.items():
        writer.add_key_value(f"one.{kind.name.lower()}", value, kind)
        second = {Kind.STRING: "", Kind.BOOL: False}.get(kind, 1)
        writer.add_key_value(f"many.{kind.name.lower()}", [value, second], Kind.ARRAY, sub_type=kind)
    writer.add_array("many.array", [[1, 2, 3], [4]])
    writer.add_array("many.array.deep", [[["a"]], [["b", "c"]]])
    for number, name in enumerate(TYPES):
        kind = Type[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        shape = [(block,), (2, block), (3, 1, block), (2, 1, 2, block)][number % 4]
        count = int(np.prod(shape)) // block * size
        data = ((7 * np.arange(count) + number) % 251).astype(np.uint8).reshape(*shape[:-1], size)
        writer.add_tensor(f"tensor.{name}", data, raw_dtype=kind)
    finish(writer)


def parts() -> None:
    writer = gguf.GGUFWriter(OUT / "parts.gguf", "none", split_max_tensors=2)
    writer.add_uint32("none.answer", 42)
    for number in range(5):
        writer.add_tensor(f"t{number}", np.full(8, number, np.float32))
    finish(writer)


def big_endian() -> None:
    writer = gguf.GGUFWriter(OUT / "big_endian.gguf", "none", endianess=gguf.GGUFEndian.BIG)
    finish(writer)


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    everything()
    parts()
    big_endian()
