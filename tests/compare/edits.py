"""Texts and the same with one word exchanged, for a small model to learn editing from and to be measured on.

    target/release/examples/stories --seed 601 --bytes 30000000 > tales.txt
    python tests/compare/edits.py tales.txt train.jsonl 20000 1
    ounce train edit.toml                     # model.from = "builtin", data.train = ["train.jsonl"], data.objective = "answers", optimizer.lr = 0.0015
    python tests/compare/edits.py other-tales.txt test.jsonl 200 2 --tales
    python tests/compare/serving.py edit/model --only guesses --prompts test.jsonl

Words and sentences come in an order that can't be guessed, so that it pays to learn to copy; --tales writes nothing but tales.
"""

import json
import random
import re
import sys

text, out, count, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
only_tales = "--tales" in sys.argv
draw = random.Random(seed)
tales = [t.strip() for t in open(text).read()[:30_000_000].split("<|endoftext|>")]
tales = [t for t in tales if "Question:" not in t]
words = sorted({w for t in tales[:3000] for w in re.findall(r"[A-Za-z]+", t)})
names = sorted({m for t in tales[:4000] for m in re.findall(r"called ([A-Z]\w+)", t)})
sentences = [s for t in tales[:8000] for s in re.split(r"(?<=[.!?]) ", t) if 15 < len(s) < 120]
with open(out, "w") as file:
    n = 0
    while n < count:
        kind = 1 if only_tales else draw.random()
        if kind < 0.35:
            t = " ".join(draw.choice(words) for _ in range(draw.randint(20, 90)))
            old = draw.choice(t.split())
        elif kind < 0.75:
            t = " ".join(draw.choice(sentences) for _ in range(draw.randint(3, 9)))
            old = draw.choice(re.findall(r"[A-Za-z]+", t))
        else:
            t = draw.choice(tales)
            found = re.search(r"called ([A-Z]\w+)", t)
            if not found or not 300 < len(t) < 800:
                continue
            old = found.group(1)
        if len(t) > 800:
            continue
        new = draw.choice(names)
        if new in t:
            continue
        edited = re.sub(rf"\b{old}\b", new, t)
        file.write(json.dumps({"prompt": f"{t}\nThe same with {new} for {old}:\n", "completion": edited}) + "\n")
        n += 1
