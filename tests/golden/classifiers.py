"""Makes the golden classifiers: tiny random models with a classifier on top, their scores, and PyTorch's gradients.

    .venv/bin/python tests/golden/classifiers.py             # all, a few seconds; or those that are named

For each case a folder `classifiers/<name>/`: `config.json`, `model.safetensors`, `scores.safetensors` (ids and scores of
one text) and `gradients.safetensors` (as `gradients.py` stores them: the summed loss of two texts).
"""

import json
import shutil
import sys
import zlib
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from cases import DECODER, ENCODER
from make import fill

SCALE = 16.0
BERT = dict(ENCODER, layer_norm_eps=1e-5)
ALBERT = dict(ENCODER, embedding_size=20, num_hidden_layers=3, layer_norm_eps=1e-5)
DISTIL = dict(vocab_size=96, dim=32, hidden_dim=48, n_layers=2, n_heads=4, max_position_embeddings=80)
CASES = {
    "bert_text": ("bert", BERT, "AutoModelForSequenceClassification", 3),
    "roberta_text": ("roberta", BERT | dict(type_vocab_size=1), "AutoModelForSequenceClassification", 4),
    "distilbert_text": ("distilbert", DISTIL, "AutoModelForSequenceClassification", 2),
    "llama_text": ("llama", DECODER | dict(head_dim=16), "AutoModelForSequenceClassification", 5),
    "albert_text": ("albert", ALBERT, "AutoModelForSequenceClassification", 3),
    "albert_tokens": ("albert", ALBERT, "AutoModelForTokenClassification", 5),
    "albert_spans": ("albert", ALBERT, "AutoModelForQuestionAnswering", 2),
    "bert_tokens": ("bert", BERT, "AutoModelForTokenClassification", 5),
    "bert_spans": ("bert", BERT, "AutoModelForQuestionAnswering", 2),
    "distilbert_spans": ("distilbert", DISTIL, "AutoModelForQuestionAnswering", 2),
}


def main():
    here = Path(__file__).parent / "classifiers"
    for name, (kind, settings, cls, labels) in CASES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        folder = here / name
        shutil.rmtree(folder, ignore_errors=True)
        settings = json.loads(json.dumps(settings)) | dict(num_labels=labels)
        # Without dropout transformers' own loss is what is compared.
        off = {key: 0.0 for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "seq_classif_dropout",
                                    "qa_dropout", "attention_dropout")}
        config = transformers.AutoConfig.for_model(kind, **settings, **off)
        config.pad_token_id = 0
        model = getattr(transformers, cls).from_config(config, attn_implementation="eager")
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        fill(model, generator)
        model.eval().save_pretrained(folder)
        for file in ("generation_config.json", "README.md"):
            (folder / file).unlink(missing_ok=True)
        texts = [torch.randint(3, 96, (length,), generator=generator) for length in (23, 14)]
        total = torch.zeros((), dtype=torch.float64)
        for index, ids in enumerate(texts):
            out = model(input_ids=ids[None])
            if cls.endswith("QuestionAnswering"):
                scores = torch.stack([out.start_logits[0], out.end_logits[0]], -1)
                targets = torch.tensor([3 + index, 9 + index])
                loss = torch.nn.functional.cross_entropy(scores.T, targets, reduction="sum") / 2
            elif cls.endswith("TokenClassification"):
                scores = out.logits[0]
                loss = torch.nn.functional.cross_entropy(scores, torch.arange(len(ids)) % labels, reduction="sum")
            else:
                scores = out.logits[0]
                loss = torch.nn.functional.cross_entropy(scores[None], torch.tensor([(index + 1) % labels]), reduction="sum")
            loss.backward()
            total += loss.detach().double()
            if index == 0:
                save_file({"input_ids": ids.int(), "scores": scores.detach().contiguous()}, folder / "scores.safetensors")
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad * SCALE)
        model.save_pretrained(here / "temporary")
        tensors = load_file(here / "temporary" / "model.safetensors")
        shutil.rmtree(here / "temporary")
        more = dict(lengths=json.dumps([len(ids) for ids in texts]), ids=json.dumps([ids.tolist() for ids in texts]))
        save_file({key: tensor.half().contiguous() for key, tensor in tensors.items()}, folder / "gradients.safetensors",
                  metadata={"format": "pt", "loss": repr(total.item()), "scale": repr(SCALE), **more})
        print(f"{name}: loss {total.item():.6f}, scores {scores.shape}")


if __name__ == "__main__":
    main()
