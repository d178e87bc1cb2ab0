"""Makes the golden files of the tokenizer tests, with the Python packages `tokenizers` and `sentencepiece`.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python tests/golden/tokenizer.py                 writes the lines and ids to tests/golden/tokenizer/
    python tests/golden/tokenizer.py --train         also trains the tokenizers again (not reproducible to the token)
    python tests/golden/tokenizer.py --full FOLDER   also encodes with full-size vocabularies (files named below)
    python tests/golden/tokenizer.py --llama-cpp     also compares with llama.cpp (gguf 0.19, llama-cpp-python 0.3.36)

Every kind of tokenizer is trained, small, on the lines of tokenizer_lines.py, and the same lines are encoded:

    lines.json     the lines
    NAME.json      tokenizer.json of the tokenizer
    NAME.ids       for each line: u16 count, then the ids as u16 (little-endian), with special tokens added
    NAME.model     SentencePiece's own file, where there is one; ids in NAME.sp.ids come from the sentencepiece package
    full-*.ids     ids of GPT-2 (gpt2_tokenizer.json.gz) and Llama 2 (llama2_tokenizer.model), which aren't stored here
"""

import argparse
import gzip
import io
import json
import struct
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,
                        trainers)
from tokenizer_lines import lines

OUT = Path(__file__).parent / "tokenizer"
NAMES = ["gpt2", "llama3", "qwen2", "llama", "t5", "bert-uncased", "bert-cased"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")


def byte_level(pattern, specials, bos=None, nfc=False, ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=800, show_progress=False, min_frequency=2,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(lines(), trainer)
    tokenizer.add_special_tokens(specials)
    tokenizer.add_tokens([AddedToken("@user", normalized=False)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))])
    return tokenizer


def sentence_piece(kind):
    """SentencePiece's trainer and file; the tokenizer.json is built from the pieces."""
    text = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for line in lines() if "\n" not in line), model_writer=text, model_type=kind,
        vocab_size=900 if kind == "bpe" else 700, character_coverage=0.98, byte_fallback=kind == "bpe", split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=kind != "bpe", minloglevel=2, num_threads=1,
        unk_surface=" \u2047 ")
    return text.getvalue()


def from_sentence_piece(content, kind):
    sp = sentencepiece.SentencePieceProcessor(model_proto=content)
    pieces = [(sp.id_to_piece(i), sp.get_score(i)) for i in range(sp.get_piece_size())]
    if kind == "bpe":
        ids = {piece: i for i, (piece, _) in enumerate(pieces)}
        usable = {piece for i, (piece, _) in enumerate(pieces) if not (sp.is_control(i) or sp.is_byte(i) or sp.is_unknown(i))}
        merges = [(score, len(piece[:k]), piece[:k], piece[k:]) for piece, score in pieces if piece in usable
                  for k in range(1, len(piece)) if piece[:k] in usable and piece[k:] in usable]
        merges.sort(key=lambda m: (-m[0], -m[1]))
        tokenizer = Tokenizer(models.BPE(ids, [(left, right) for _, _, left, right in merges], unk_token="<unk>",
                                         fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                               decoders.Strip(" ", 1, 0)])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    else:
        tokenizer = Tokenizer(models.Unigram(pieces, 0, False))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Replace(Regex(r"\A +| +\z"), ""),
                                                     normalizers.Replace(Regex(" {2,}"), " ")])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
        tokenizer.decoder = decoders.Metaspace("▁", "always")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def bert(lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(lines(), trainers.WordPieceTrainer(
        vocab_size=900, special_tokens=specials, show_progress=False, limit_alphabet=350))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def write_ids(path, rows):
    with open(path, "wb") as out:
        for row in rows:
            out.write(struct.pack(f"<H{len(row)}H", len(row), *row))


def compact(tokenizer):
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n"


def train():
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe, unigram = sentence_piece("bpe"), sentence_piece("unigram")
    (OUT / "llama.model").write_bytes(bpe)
    (OUT / "t5.model").write_bytes(unigram)
    made = {
        "gpt2": byte_level(None, ["<|endoftext|>"]),
        "llama3": byte_level(LLAMA3, ["<|begin_of_text|>", "<|eot_id|>"], bos="<|begin_of_text|>", ignore_merges=True),
        "qwen2": byte_level(QWEN2, chat, nfc=True),
        "llama": from_sentence_piece(bpe, "bpe"),
        "t5": from_sentence_piece(unigram, "unigram"),
        "bert-uncased": bert(True),
        "bert-cased": bert(False),
    }
    for name, tokenizer in made.items():
        (OUT / f"{name}.json").write_text(compact(tokenizer))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--full", type=Path)
    parser.add_argument("--llama-cpp", action="store_true")
    arguments = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    text = lines()
    (OUT / "lines.json").write_text(json.dumps(text, ensure_ascii=False, indent=0) + "\n", newline="\n")
    if arguments.train:
        train()
    made = {name: Tokenizer.from_file(str(OUT / f"{name}.json")) for name in NAMES}
    for name, tokenizer in made.items():
        rows = [tokenizer.encode(line).ids for line in text]
        write_ids(OUT / f"{name}.ids", rows)
        print(f"{name}: {tokenizer.get_vocab_size()} tokens, {sum(map(len, rows))} ids")
    for name in ["llama", "t5"]:
        sp = sentencepiece.SentencePieceProcessor(model_file=str(OUT / f"{name}.model"))
        plain = [sp.encode(line) for line in text]
        write_ids(OUT / f"{name}.sp.ids", plain)
        ours = [made[name].encode(line, add_special_tokens=False).ids for line in text]
        # SentencePiece doesn't look for special tokens in the text, and takes its mark for a space.
        different = [i for i in range(len(text)) if plain[i] != ours[i]
                     and not any(part in text[i] for part in ["<s>", "</s>", "<unk>", "▁"])]
        print(f"{name}: tokenizers and sentencepiece differ on {len(different)} lines")
        for i in different[:12]:
            print("   ", repr(text[i]), plain[i][:12], ours[i][:12])
    if arguments.full:
        gpt2 = Tokenizer.from_str(gzip.open(arguments.full / "gpt2_tokenizer.json.gz").read().decode())
        llama2 = sentencepiece.SentencePieceProcessor(model_file=str(arguments.full / "llama2_tokenizer.model"))
        write_ids(OUT / "full-gpt2.ids", [gpt2.encode(line).ids for line in text])
        write_ids(OUT / "full-llama2.ids", [llama2.encode(line) for line in text])
    if arguments.llama_cpp:
        from tokenizer_llama_cpp import compare
        with tempfile.TemporaryDirectory() as folder:
            for name in made:
                compare(name, made[name], text, Path(folder))


if __name__ == "__main__":
    main()
