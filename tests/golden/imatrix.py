"""Makes the golden files in imatrix/: importance matrices as llama.cpp's llama-imatrix writes them.

Run from anywhere:  python tests/golden/imatrix.py
Needs: numpy, gguf.

  new.gguf       the format on GGUF, with the gguf package: a dense matrix, and one of three experts of which the second
                 saw no token
  old.dat        the older binary format, packed by hand as save_imatrix_legacy does: the same dense matrix, and the
                 experts as one entry
  expected.json  what llama-quantize makes of each (load_imatrix in tools/quantize/quantize.cpp), in float32
"""

import json
import pathlib
import struct

import gguf
import numpy as np

OUT = pathlib.Path(__file__).parent / "imatrix"
DATASETS = ["texts/wiki ü.txt", "code.txt"]
CHUNKS, CHUNK_SIZE = 3, 512
DENSE, EXPERTS = "blk.0.attn_q.weight", "blk.1.ffn_down_exps.weight"


class Writer(gguf.GGUFWriter):
    """A matrix has no architecture."""

    def add_architecture(self) -> None:
        pass


def entries() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(7)
    dense = rng.exponential(100, (1, 8)).astype(np.float32)
    experts = rng.exponential(10, (3, 4)).astype(np.float32)
    experts[1] = 0
    return {
        DENSE: (dense, np.array([[CHUNKS * CHUNK_SIZE]], np.float32)),
        EXPERTS: (experts, np.array([[1000], [0], [2072]], np.float32)),
    }


def new(all_entries: dict) -> dict:
    writer = Writer(OUT / "new.gguf", "")
    writer.add_type(gguf.GGUFType.IMATRIX)
    writer.add_array(gguf.Keys.IMatrix.DATASETS, DATASETS)
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_COUNT, CHUNKS)
    writer.add_uint32(gguf.Keys.IMatrix.CHUNK_SIZE, CHUNK_SIZE)
    for name, (sums, counts) in sorted(all_entries.items()):
        # ggml stores no dimension of 1 at the end.
        flat = len(counts) == 1
        writer.add_tensor(f"{name}.in_sum2", sums.reshape(-1) if flat else sums)
        writer.add_tensor(f"{name}.counts", counts.reshape(-1) if flat else counts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    means = {}
    for name, (sums, counts) in all_entries.items():
        means[name] = np.where(counts > 0, sums / np.maximum(counts, np.float32(1)), np.float32(1))
    return means


def old(all_entries: dict) -> dict:
    data, means = struct.pack("<i", len(all_entries)), {}
    for name, (sums, counts) in sorted(all_entries.items()):
        calls = int(counts.max() + CHUNK_SIZE - 1) // CHUNK_SIZE
        stored = np.where(counts > 0, sums / np.maximum(counts, np.float32(1)), np.float32(1)) * np.float32(calls)
        stored = stored.astype(np.float32)
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", calls, stored.size)
        data += stored.tobytes()
        means[name] = stored / np.float32(calls)
    dataset = DATASETS[-1].encode()
    data += struct.pack("<ii", CHUNKS, len(dataset)) + dataset
    (OUT / "old.dat").write_bytes(data)
    return means


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    found = {"new": new(entries()), "old": old(entries())}
    plain = {kind: {name: [float(x) for x in values.astype(np.float32).ravel()] for name, values in means.items()}
             for kind, means in found.items()}
    (OUT / "expected.json").write_text(json.dumps(plain, indent=1) + "\n")
