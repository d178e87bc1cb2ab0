"""Makes the golden models: tiny random-weight models written by transformers, with what transformers computes.

    python -m venv .venv
    .venv/bin/pip install "transformers==5.23.*" "sentence-transformers==6.2.*" torch safetensors numpy
    .venv/bin/python tests/golden/make.py                    # all, about a minute on two cores
    .venv/bin/python tests/golden/make.py llama gemma2       # only these
    .venv/bin/python tests/golden/make.py --list
    .venv/bin/python tests/golden/make.py gemma2 --hidden --out /tmp/debug   # with the output of every layer

Goes in: the table in `cases.py`. Comes out, for each case, a folder `models/<name>/` as README.md describes it.
Weights come from a generator seeded by the case's name, so the same versions write the same bytes; the reference is
computed in float32 with eager attention from the saved files, never from the model in memory.

A case is refused, and nothing written, if its golden file could not tell right from wrong: results that are not
finite, too flat or too large, positions that agree, a tensor whose change leaves the result alone, a configuration
change listed as `sensitive` that leaves it alone, a router so undecided that rounding picks the expert, or a
`config.hub.json` that does not give the same result as `config.json`.
"""

import argparse
import json
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from cases import CASES, CONTEXT, hub_config

GAIN = 1.4  # standard deviation of a matrix times sqrt(fan in): keeps every score within the curved part of softmax
TOLERANCE = 1e-3  # what the tests allow; wrong models must differ by more, rounding (float32 to float64) by far less
ROUTER_MARGIN = 2e-3  # smallest gap between the last chosen and the first rejected expert's logit
TEXTS = ["a small model", "the cat sat by the river.", "memory and weights: 3 of 7", "query: is it small?",
         "the the the the the the the the the the the the the the the the the the the the the the the the the"]
MAX_TOKENS = 24  # max_seq_length of the sentence encoders; the last text is longer
WORDS = "the a of and is it cat sat by model memory small river query passage weight ##s ##ing ##ed".split()

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def fill(model, generator):
    """Random values for every parameter; one-dimensional ones are moved away from their usual 0 or 1."""
    transposed = {id(m.weight) for m in model.modules() if type(m).__name__ == "Conv1D"}
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.3 * noise)
            elif "embed" in name or ".wte" in name or ".wpe" in name:
                parameter.copy_(noise * (0.5 if "position" in name or "token_type" in name or "wpe" in name else 1.0))
            else:
                fan_in = parameter.shape[0] if id(parameter) in transposed else parameter.shape[-1]
                parameter.copy_(noise * GAIN / fan_in**0.5)


def rewrite_tensors(folder, change):
    """Replaces the tensors of a single-file model by what `change` makes of them."""
    file = folder / "model.safetensors"
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def gpt2_hub_files(folder, config):
    """The layout of the published GPT-2: base model names, and a causal mask stored for every layer."""
    mask = torch.ones(config.n_positions, config.n_positions).tril()[None, None]
    masks = {f"h.{layer}.attn.bias": mask.clone() for layer in range(config.n_layer)}
    rewrite_tensors(folder, lambda tensors: masks | {
        name.removeprefix("transformer."): tensor for name, tensor in tensors.items()})


def bert_hub_files(folder, config):
    """The layout of the published BERT: gamma and beta, position ids, and the parts of pre-training nobody runs."""
    size = config.hidden_size
    more = {"bert.embeddings.position_ids": torch.arange(config.max_position_embeddings)[None],
            "bert.pooler.dense.weight": torch.eye(size), "bert.pooler.dense.bias": torch.zeros(size),
            "cls.seq_relationship.weight": torch.ones(2, size), "cls.seq_relationship.bias": torch.zeros(2)}
    rewrite_tensors(folder, lambda tensors: more | {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()})


def sentence_hub_files(folder, config):
    """The files of published sentence encoders: older keys, and a tokenizer.json that truncates and pads by itself.

    The limit that counts is `max_seq_length`; the truncation and padding in tokenizer.json must be overruled.
    """
    modules = ["Transformer", "Pooling", "Normalize"]
    write_json(folder / "modules.json", [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"sentence_transformers.models.{name}"}
        for i, name in enumerate(modules)])
    shutil.rmtree(folder / "2_Normalize")  # its module has no settings, and git keeps no empty folder
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    write_json(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": config.hidden_size, "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False})
    write_json(folder / "config_sentence_transformers.json", {
        "__version__": {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}})
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", settings | {"model_max_length": 512, "tokenizer_class": "BertTokenizer"})
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["truncation"] = {"direction": "Right", "max_length": 12, "strategy": "LongestFirst", "stride": 0}
    tokenizer["padding"] = {"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                            "pad_type_id": 0, "pad_token": "[PAD]"}
    write_json(folder / "tokenizer.json", tokenizer)


def word_piece(vocab_size):
    """A BERT tokenizer whose vocabulary is the alphabet and a few words, padded with unused entries."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz"
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), *"0123456789.,:?"]
    entries += [word for word in WORDS if word not in entries]
    entries += [f"[unused{i}]" for i in range(vocab_size - len(entries))]
    vocab = {entry: i for i, entry in enumerate(entries[:vocab_size])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=CONTEXT)


def write_model(case, seed, folder):
    """Builds the random model and saves it as transformers does, then brings the files to the case's layout."""
    config = transformers.AutoConfig.for_model(case.kind, **json.loads(json.dumps(case.config)))
    cls = getattr(transformers, case.model)
    model = cls.from_config(config) if case.model.startswith("Auto") else cls(config)
    fill(model, torch.Generator().manual_seed(zlib.crc32(case.name.encode()) + seed))
    model = model.to(getattr(torch, case.dtype)).eval()
    if case.pooling:
        write_sentence_folder(case, model, folder)
    else:
        model.save_pretrained(folder, **case.save)
    for file in ("generation_config.json", "README.md"):
        (folder / file).unlink(missing_ok=True)
    if case.rewrite:
        globals()[case.rewrite](folder, config)
    saved = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.hub.json", hub_config({k: v for k, v in saved.items() if k not in case.drop}))
    write_json(folder / "config.json", {k: v for k, v in saved.items() if k not in case.drop})


def write_sentence_folder(case, model, folder):
    """Wraps an encoder as a sentence-transformers folder: encoder, pooling, normalisation."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    with tempfile.TemporaryDirectory() as plain:
        model.save_pretrained(plain)
        word_piece(model.config.vocab_size).save_pretrained(plain)
        encoder = Transformer(plain, max_seq_length=MAX_TOKENS, model_kwargs={"dtype": model.dtype})
    pooling = Pooling(model.config.hidden_size, case.pooling)
    SentenceTransformer(modules=[encoder, pooling, Normalize()], prompts=case.prompts or None).save(
        str(folder), create_model_card=False)


def load(case, folder, changes=None, config_file="config.json"):
    """The model from the saved files, in float32; `changes` replaces keys of its configuration."""
    cls = getattr(transformers, case.load or case.model)
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.glob("model*.safetensors*"):
            (Path(copy) / file.name).symlink_to(file.resolve())
        config = json.loads((folder / config_file).read_text()) | (changes or {})
        write_json(Path(copy) / "config.json", config)
        model, report = cls.from_pretrained(copy, dtype=torch.float32, attn_implementation="eager",
                                            output_loading_info=True)
        if any(type(module).__name__.endswith("Experts") for module in model.modules()):
            model.set_experts_implementation("eager")
    unset = [name for name in report["missing_keys"] if not name.startswith("pooler.")]
    if unset:
        raise SystemExit(f"{case.name}: transformers did not find {unset} in the files it wrote")
    return model.eval()


def inputs_of(case, vocab_size):
    """64 token ids, the first half distinct, without the first three, which families use for padding and the like."""
    generator = torch.Generator().manual_seed(zlib.crc32(b"ids" + case.name.encode()))
    distinct = torch.randperm(vocab_size - 3, generator=generator)[: CONTEXT // 2] + 3
    repeated = torch.randint(3, vocab_size, (CONTEXT - len(distinct),), generator=generator)
    inputs = {"input_ids": torch.cat([distinct, repeated])[None]}
    if case.token_types:
        inputs["token_type_ids"] = (torch.arange(CONTEXT) >= 40).long()[None]
    return inputs


def results(model, inputs):
    """What is compared: name to tensor, batch axis removed."""
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True)
    tensors = {}
    if "logits" in out:
        tensors["logits"] = out.logits[0]
    if "last_hidden_state" in out:
        tensors["last_hidden_state"] = out.last_hidden_state[0]
    elif "Masked" in type(model).__name__:
        tensors["last_hidden_state"] = out.hidden_states[-1][0]
    tensors |= {f"hidden.{i}": hidden[0] for i, hidden in enumerate(out.hidden_states)}
    return tensors


def main_result(tensors):
    return tensors.get("logits", tensors.get("last_hidden_state"))


def router_margin(model, inputs):
    """Smallest gap in logits between the last chosen and the first rejected expert; infinite without routers."""
    margins, hooks = [torch.inf], []

    def watch(module, _, output):
        ordered = output[0].sort(dim=-1, descending=True).values
        margins.append((ordered[:, module.top_k - 1] - ordered[:, module.top_k]).min().item())

    for module in model.modules():
        if type(module).__name__.endswith("TopKRouter"):
            hooks.append(module.register_forward_hook(watch))
    results(model, inputs)
    for hook in hooks:
        hook.remove()
    return min(margins)


def difference(a, b):
    return (a - b).abs().max().item()


def inert_tensors(model, inputs, expected):
    """Names of the tensors (for stacked experts: of the slices) whose change does not show in the result."""
    found, generator = [], torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            slices = range(parameter.shape[0]) if parameter.ndim == 3 else [slice(None)]
            for index in slices:
                kept = parameter[index].clone()
                parameter[index] = kept + 0.2 * torch.randn(kept.shape, generator=generator)
                if not difference(main_result(results(model, inputs)), expected) > 2 * TOLERANCE:
                    found.append(name if parameter.ndim < 3 else f"{name}[{index}]")
                parameter[index] = kept
    return found


def rounding_noise(case, folder, inputs, expected):
    """How far the same computation in float64 is from the reference."""
    return difference(main_result(results(load(case, folder).double(), inputs)), expected)


def complaints(case, folder, model, inputs, expected):
    """Everything that makes this golden file unfit, as sentences."""
    found = []
    if not torch.isfinite(expected).all():
        return ["the result is not finite"]
    if not 0.5 <= expected.std().item() <= 10.0:
        found.append(f"the result's standard deviation {expected.std().item():.3f} is outside 0.5 to 10")
    if torch.cdist(expected, expected, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(9).min() < 1e-2:
        found.append("two positions have the same result")
    dead = [name for name in inert_tensors(model, inputs, expected) if not name.endswith(case.inert or "\0")]
    if dead:
        found.append(f"these tensors do not matter: {dead}")
    for change in case.sensitive:
        moved = difference(main_result(results(load(case, folder, change), inputs)), expected)
        if not moved > 2 * TOLERANCE:
            found.append(f"the configuration change {change} moves the result by {moved:.1e} only")
    if rounding_noise(case, folder, inputs, expected) > TOLERANCE / 10:
        found.append(f"float64 gives another result, by {rounding_noise(case, folder, inputs, expected):.1e}")
    hub = main_result(results(load(case, folder, config_file="config.hub.json"), inputs))
    if difference(hub, expected) != 0.0:
        found.append(f"config.hub.json gives another result, by {difference(hub, expected):.1e}")
    return found


def sentence_golden(folder, inputs, golden):
    """Adds the embedding of the 64 ids, and of every text in texts.json after tokenising, by sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32,
                                                                           "attn_implementation": "eager"})
    mask = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        golden["embedding"] = encoder({**inputs, "attention_mask": mask})["sentence_embedding"][0]
    golden["texts.embeddings"] = torch.stack([torch.from_numpy(encoder.encode(text)) for text in TEXTS])
    for i, text in enumerate(TEXTS):
        golden[f"texts.{i}.input_ids"] = encoder.preprocess([text])["input_ids"][0].to(torch.int32)
    if encoder.prompts.get("query"):
        golden["texts.query_embeddings"] = torch.stack(
            [torch.from_numpy(encoder.encode(text, prompt_name="query")) for text in TEXTS])
    write_json(folder / "texts.json", TEXTS)


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def make(case, out, hidden):
    """Writes one case, or ends the program with the reasons why it is unfit. Returns a line of numbers."""
    final, folder = out / case.name, out / f"{case.name}.new"
    for seed in range(case.seed, case.seed + 100):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_model(case, seed, folder)
        model = load(case, folder)
        inputs = inputs_of(case, model.config.vocab_size)
        margin = router_margin(model, inputs)
        if margin > ROUTER_MARGIN:
            break
    tensors = results(model, inputs)
    expected = main_result(tensors)
    reasons = complaints(case, folder, model, inputs, expected)
    if margin <= ROUTER_MARGIN:
        reasons.append(f"in 100 seeds some router decided by {margin:.1e} or less")
    if reasons:
        sys.exit(f"{case.name}: " + "; ".join(reasons) + f" (left in {folder})")
    golden = {name: tensor[0].to(torch.int32) for name, tensor in inputs.items()}
    golden |= {name: tensor for name, tensor in tensors.items() if hidden or not name.startswith("hidden.")}
    if case.pooling:
        sentence_golden(folder, inputs, golden)
    save_file({name: tensor.contiguous().clone() for name, tensor in golden.items()}, folder / "golden.safetensors",
              metadata={"made_by": f"transformers {transformers.__version__}, "
                                   f"torch {torch.__version__.split('+')[0]}, seed {seed}"})
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)
    shutil.rmtree(final, ignore_errors=True)
    folder.rename(final)
    weights = sum(f.stat().st_size for f in final.glob("model*.safetensors"))
    golden_size = (final / "golden.safetensors").stat().st_size
    return (f"{case.name:24} {weights:8} {golden_size:8}  std {expected.std().item():5.2f}"
            f"  rounding {rounding_noise(case, final, inputs, expected):.1e}  router {margin:7.1e}  seed {seed}")


def main():
    parser = argparse.ArgumentParser(description="Makes the golden models; see the head of this file.")
    parser.add_argument("names", nargs="*", help="cases to make; all when left out")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    parser.add_argument("--hidden", action="store_true", help="also store the output of every layer as hidden.<i>")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "models", help="folder of the models")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(case.name for case in CASES))
        return
    unknown = set(arguments.names) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; see --list")
    print(f"{'case':24} {'weights':>8} {'golden':>8}  (bytes)")
    for case in CASES:
        if not arguments.names or case.name in arguments.names:
            print(make(case, arguments.out, arguments.hidden), flush=True)
    total = sum(f.stat().st_size for f in arguments.out.rglob("*") if f.is_file())
    print(f"{total} bytes in {arguments.out}")


if __name__ == "__main__":
    main()
