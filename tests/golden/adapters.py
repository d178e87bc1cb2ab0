"""Makes the golden adapters: what Python's peft computes and writes.

    pip install torch transformers peft safetensors
    python tests/golden/adapters.py              # all, a minute

Goes in: `models/llama` and `models/gpt2`. Comes out `adapters/<name>/`: the folder that `save_pretrained` writes, with every weight drawn at
random so that nothing is zero, and `expected.safetensors`: the logits of `IDS`, and under the file's names the gradient of
the summed cross-entropy of each next id by the adapter's weights, times nothing, in float32.
"""

import shutil
import sys
from pathlib import Path

import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

IDS = [(7 * i + 3) % 96 for i in range(24)]
TARGETS = ["q_proj", "v_proj", "down_proj"]
CASES = {
    "lora": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=TARGETS),
    "rslora": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, use_rslora=True, target_modules=TARGETS),
    "lora_ranks": LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=TARGETS, rank_pattern={"v_proj": 2},
        alpha_pattern={"down_proj": 3},
    ),
    "dora": LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=6, use_dora=True, target_modules=TARGETS),
    "adalora": AdaLoraConfig(
        task_type="CAUSAL_LM", init_r=4, target_r=2, lora_alpha=6, target_modules=TARGETS, total_step=10, tinit=1, tfinal=1
    ),
    "lora_fused": LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=6, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True
    ),
    "vera": VeraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"]),
    "ia3": IA3Config(
        task_type="CAUSAL_LM", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "prompt": PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
    "p_tuning": PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=5, encoder_hidden_size=16),
    "prefix": PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5),
}


# All are of `models/llama` but these.
BASES = {"lora_fused": "gpt2"}


def base(here, name):
    return AutoModelForCausalLM.from_pretrained(
        here / "models" / BASES.get(name, "llama"), attn_implementation="eager", dtype=torch.float32
    )


def logits_of(model, virtual):
    logits = model(input_ids=torch.tensor([IDS])).logits[0]
    return logits[-len(IDS) :] if virtual else logits


def main():
    here = Path(__file__).parent
    for name in sys.argv[1:] or CASES:
        torch.manual_seed(11)
        config = CASES[name]
        model = get_peft_model(base(here, name), config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.1 * torch.randn_like(parameter))
        model.eval()
        folder = here / "adapters" / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        path = folder / "adapter_config.json"
        # Where the base lay when this was made says nothing.
        path.write_text(path.read_text().replace(f"{here}/", ""))
        logits = logits_of(model, config.peft_type in ("PROMPT_TUNING", "P_TUNING"))
        loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(IDS[1:]), reduction="sum")
        loss.backward()
        expected = {"logits": logits.detach().contiguous(), "loss": loss.detach()[None]}
        saved = load_file(folder / "adapter_model.safetensors")
        # What a small network made has no gradient of its own.
        for key in saved if config.peft_type != "P_TUNING" else []:
            parameter = find(model, key)
            if parameter is not None and parameter.grad is not None:
                expected[f"gradient.{key}"] = parameter.grad.contiguous()
        save_file(expected, folder / "expected.safetensors")
        again = PeftModel.from_pretrained(base(here, name), folder).eval()
        found = logits_of(again, config.peft_type in ("PROMPT_TUNING", "P_TUNING"))
        print(name, sorted(saved)[:3], len(expected) - 2, "gradients;", float((found - logits).abs().max()))


def find(model, key):
    """The parameter that a key of the file is of; none for what a small network made."""
    parameters = dict(model.named_parameters())
    if key == "prompt_embeddings":
        return parameters.get("prompt_encoder.default.embedding.weight")
    stem, _, last = key.rpartition(".")
    for name in (key, f"{stem}.default.{last}", f"{key}.default", f"{key}.default.weight"):
        if name in parameters:
            return parameters[name]
    return None


if __name__ == "__main__":
    main()
