"""Writes tests/golden/parquet/: the same table as pyarrow writes it, in every packing that data sets use.

    pip install pyarrow==22.0.0
    python tests/golden/parquet.py
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent / "parquet"

ROWS = [
    {"id": i, "text": None if i == 3 else f"story {i}: " + "ä cat and a dog " * (i % 3),
     "score": i / 4, "good": i % 2 == 0,
     "messages": [{"role": "user", "content": f"question {i}"}, {"role": "assistant", "content": "answer"}][: i % 3]}
    for i in range(10)
]


def main():
    HERE.mkdir(exist_ok=True)
    table = pa.Table.from_pylist(ROWS)
    for name, options in {
        "none": dict(compression="none", use_dictionary=False),
        "snappy": dict(compression="snappy", row_group_size=4),
        "gzip": dict(compression="gzip", data_page_version="2.0"),
        "zstd": dict(compression="zstd", data_page_size=64, use_dictionary=False),
    }.items():
        pq.write_table(table, HERE / f"{name}.parquet", **options)
    (HERE / "rows.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))


if __name__ == "__main__":
    main()
