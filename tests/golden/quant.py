"""Makes the golden files in quant/: what other tools read from and write to every stored format.

Run from anywhere:  python tests/golden/quant.py
Needs: numpy, torch, gguf, llama-cpp-python (for ggml itself, called through ctypes; without it only formats that came later are
made, by the gguf package).

  values.f32          6144 numbers in rows of 256: random ones and edge cases (zeros, constants, ties, outliers,
                      tiny, huge), little-endian F32, the input of every encoder
  encode/NAME.bin     values.f32 written as NAME by ggml without importance matrix (torch for the 8-bit floats)
  decode/NAME.bin     random blocks with sane scales, or every code there is for the 8-bit floats
  decode/NAME.f32     what the gguf package (torch for 8-bit floats, numpy for F64) reads from them

Where both the gguf package and ggml know a direction, the script checks that they agree before it writes.
"""

import ctypes
import pathlib
import sys

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type

OUT = pathlib.Path(__file__).parent / "quant"
SEED = 20240607
ENCODED = ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
           "IQ4_NL", "IQ4_XS", "MXFP4"]
FLOAT8 = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
# Offsets of the F16 scales and minimums in a block.
SCALES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0], "IQ1_S": [0], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0],
    "TQ1_0": [52], "TQ2_0": [64],
}
LATER = ["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "TQ1_0", "TQ2_0"]
# Written by the gguf package alone where ggml is not at hand.
TERNARY = ["TQ1_0", "TQ2_0"]

try:
    import llama_cpp

    ggml = ctypes.CDLL(str(next((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.*"))))
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
except ImportError:
    ggml = None


def ggml_encode(name: str, rows: np.ndarray) -> bytes:
    kind = Type[name]
    block, size = GGML_QUANT_SIZES[kind]
    out = np.zeros(rows.size // block * size, np.uint8)
    rows = np.ascontiguousarray(rows, np.float32)
    written = ggml.ggml_quantize_chunk(
        ctypes.c_int(kind), rows.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_int64(0), ctypes.c_int64(rows.shape[0]), ctypes.c_int64(rows.shape[1]), None)
    assert written == out.size, name
    return out.tobytes()


def ggml_decode(name: str, blocks: np.ndarray, count: int) -> np.ndarray:
    suffix = name.replace("_K", "_k").lower().replace("_k", "_K")
    out = np.zeros(count, np.float32)
    blocks = np.ascontiguousarray(blocks)
    getattr(ggml, f"dequantize_row_{suffix}")(
        blocks.ctypes.data_as(ctypes.c_void_p), out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(count))
    return out


def input_values(rng: np.random.Generator) -> np.ndarray:
    """24 rows of 256."""
    rows = [rng.normal(0, 0.02, 256) for _ in range(3)]
    rows += [rng.standard_t(3, 256) * 0.05 for _ in range(3)]
    rows += [rng.uniform(0.1, 1, 256), rng.uniform(-1, -0.1, 256), rng.uniform(-1, 1, 256)]
    rows += [np.zeros(256), np.full(256, 0.37), np.full(256, -0.37)]
    tie = np.tile([0.25, -0.25], 128)
    rows += [tie, -tie]  # the largest magnitude occurs with both signs: the first one decides
    rows += [rng.integers(-16, 17, 256) / 2.0]  # many halves to round
    alone = np.zeros(256)
    alone[77] = -3.0
    rows += [alone, alone + rng.normal(0, 0.01, 256)]
    rows += [rng.normal(0, 1e-20, 256), rng.normal(0, 1e-6, 256)]  # scale 0 and subnormal in F16
    rows += [rng.uniform(-6e4, 6e4, 256)]
    rows += [rng.normal(0, 1, 256) * np.repeat(10.0 ** -np.arange(8), 32)]
    rows += [rng.normal(0, 1, 256) * np.repeat([1, 0] * 8, 16), np.abs(rng.normal(0, 1, 256)) - 3]
    rows += [np.repeat(rng.normal(0, 1, 8), 32) + rng.normal(0, 1e-5, 256)]  # groups with hardly any range
    values = np.stack(rows).astype(np.float32)
    assert values.shape == (24, 256)
    return values


def random_blocks(rng: np.random.Generator, name: str, count: int) -> np.ndarray:
    block, size = GGML_QUANT_SIZES[Type[name]]
    blocks = rng.integers(0, 256, (count // block, size), dtype=np.uint8)
    if name in TERNARY:
        # Digits that are no number of three values, and the fourth code of two bits, stand for nothing that is written.
        blocks = np.frombuffer(gguf.quants.quantize(rng.normal(0, 1, (count // block, block)).astype(np.float32),
                                                    Type[name]).tobytes(), np.uint8).reshape(-1, size).copy()
    if name == "IQ1_M":
        # Four bits of the F16 scale stand above the others in each of four words.
        words = blocks[:, 48:].copy().view(np.uint16) & 0x0FFF
        scale = rng.uniform(0.01, 0.1, len(blocks)).astype(np.float16).view(np.uint16)
        for word in range(4):
            words[:, word] |= (scale >> (4 * word) & 15) << 12
        blocks[:, 48:] = words.view(np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(100, 140, len(blocks))
        blocks[:5, 0] = [0, 1, 2, 127, 254]
    for at in SCALES.get(name, []):
        scale = rng.uniform(0.01, 0.1, len(blocks)).astype(np.float16)
        scale[0] = -scale[0]
        scale[1] = 3e-7  # subnormal
        blocks[:, at : at + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks


def write(path: str, data: np.ndarray | bytes) -> None:
    (OUT / path).parent.mkdir(parents=True, exist_ok=True)
    (OUT / path).write_bytes(data if isinstance(data, bytes) else data.tobytes())


def later() -> None:
    """Formats that came later, from numbers of their own, so that the older files stay as they are."""
    rng = np.random.default_rng(SEED + 1)
    values = input_values(np.random.default_rng(SEED))
    for name in TERNARY:
        write(f"encode/{name}.bin", gguf.quants.quantize(values, Type[name]))
    for name in LATER:
        count = 8 * 256
        blocks = random_blocks(rng, name, count)
        decoded = gguf.quants.dequantize(blocks, Type[name]).astype(np.float32).ravel()
        if ggml is not None:
            same = decoded.tobytes() == ggml_decode(name, blocks, count).tobytes()
            print(f"decode {name}: ggml {'agrees' if same else 'DIFFERS'}")
        write(f"decode/{name}.bin", blocks)
        write(f"decode/{name}.f32", decoded)


def main() -> None:
    later()
    if ggml is None:
        sys.exit("without llama-cpp-python only the later formats are made")
    rng = np.random.default_rng(SEED)
    values = input_values(rng)
    write("values.f32", values)
    for name in ENCODED:
        encoded = ggml_encode(name, values)
        try:
            same = gguf.quants.quantize(values, Type[name]).tobytes() == encoded
            print(f"encode {name}: gguf package {'agrees' if same else 'DIFFERS'}")
        except NotImplementedError:
            print(f"encode {name}: ggml only")
        write(f"encode/{name}.bin", encoded)
    for name, kind in FLOAT8.items():
        # Numbers past the end of the range are refused by ounce; they stay out of the comparison.
        limit = torch.finfo(kind).max
        inside = torch.from_numpy(values).clamp(-limit, limit)
        write(f"encode/{name}.bin", inside.to(kind).view(torch.uint8).numpy())
        codes = torch.arange(256, dtype=torch.uint8)
        write(f"decode/{name}.bin", codes.numpy())
        write(f"decode/{name}.f32", codes.view(kind).to(torch.float32).numpy())

    for name in [name for name in [*SCALES, "MXFP4"] if name not in LATER]:
        count = 6 * 256
        blocks = random_blocks(rng, name, count)
        decoded = gguf.quants.dequantize(blocks, Type[name]).astype(np.float32).ravel()
        same = decoded.tobytes() == ggml_decode(name, blocks, count).tobytes()
        print(f"decode {name}: ggml {'agrees' if same else 'DIFFERS'}")
        write(f"decode/{name}.bin", blocks)
        write(f"decode/{name}.f32", decoded)
    for name in ["F16", "BF16"]:
        bits = rng.integers(0, 1 << 16, 512, dtype=np.uint16)
        write(f"decode/{name}.bin", bits)
        write(f"decode/{name}.f32", gguf.quants.dequantize(bits.view(np.uint8).reshape(1, -1), Type[name]))
    wide = rng.normal(0, 1, 64) * 10.0 ** rng.uniform(-30, 30, 64)
    write("decode/F64.bin", wide)
    write("decode/F64.f32", wide.astype(np.float32))


if __name__ == "__main__":
    main()
