//! Every key of a run's file, in the order in which `ounce train --init` writes them.

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// `section.key`.
    pub name: &'static str,
    /// What it means, its unit and when to change it.
    pub help: &'static str,
}

const fn key(name: &'static str, help: &'static str) -> Key {
    Key { name, help }
}

/// All keys.
pub static TABLE: &[Key] = &[
    key(
        "model.from",
        "a model to go on from: a folder, a GGUF file, a pulled name, builtin; empty for new weights",
    ),
    key(
        "model.preset",
        "shape of new weights: llama, cpu-lm (few key/value heads, spike guards), minicpm (one learning rate for all widths), bert, albert (layers share one set of weights)",
    ),
    key("model.hidden", "width of the residual stream"),
    key("model.layers", "layers"),
    key("model.heads", "attention heads; they split the width evenly"),
    key("model.kv_heads", "key/value heads; 0 for the preset's"),
    key("model.feed_forward", "inner width of the feed-forward halves; 0 for the preset's"),
    key("model.embedding", "width of token vectors, for albert; 0 for the preset's"),
    key("model.groups", "sets of weights that albert's layers share; 1 as published"),
    key("model.context", "positions of a new model"),
    key("model.tied", "whether the embedding serves as head (presets cpu-lm never, bert and albert always)"),
    key("model.init", "standard deviation of new weights; 0 for the preset's"),
    key(
        "model.trains",
        "patterns of weights to train, as [\"*norm*\", \"layers.0.*\"]; empty for all. Others stay as they are stored, quantized or not",
    ),
    key(
        "model.stored",
        "numbers that all weights are stored in while the model is trained: matrices read theirs from one shared array (STABLE-RPS); 0 stores each weight. The written model has them all",
    ),
    key(
        "tokenizer.from",
        "a folder or tokenizer.json; empty for the model's own, or the built-in model's for new weights",
    ),
    key("data.train", "files, folders or patterns: text, JSONL, CSV, TSV, Parquet, also .gz"),
    key("data.validation", "files for validation; empty to hold out a part of the others"),
    key("data.held_out", "the part held out if there are no files for it, by content; 0 for none"),
    key(
        "data.objective",
        "language (next token), answers (of instructions and chats), preferences (the better of two answers, by DPO), masked (encoders), classify (labels of texts), tag (of words), spans (answers that stand in texts), or auto",
    ),
    key("data.context", "tokens of a sequence at most; 0 for the model's positions"),
    key("data.separator", "the line between two documents of a text file; empty for blank lines"),
    key("data.layout", "documents (a sequence never crosses from one to the next) or chunks"),
    key(
        "data.packing",
        "rows of answers: none (no rows, no padding), dynamic (CodeACT), first-fit, padded, fixed; all but none only to compare",
    ),
    key("data.isolated", "whether answers in one row are hidden from each other"),
    key("data.shuffle", "whether documents come in a new order each epoch"),
    key("data.mask", "the part of tokens that is hidden (masked)"),
    key(
        "data.stride",
        "where answers are looked for in a text longer than data.context: tokens from one window's start to the next's (spans)",
    ),
    key("data.cache", "where the token ids are kept; empty for tokens.bin in the output folder"),
    key(
        "train.batch",
        "sequences of a micro-batch: batch * context tokens, or so many examples with labels; lower it if memory runs out",
    ),
    key("train.accumulation", "micro-batches whose gradients make one step"),
    key("train.steps", "steps; or give tokens, epochs or minutes; with none of them one epoch"),
    key("train.tokens", "tokens"),
    key("train.epochs", "passes over the data, also parts of one"),
    key("train.minutes", "minutes, made into steps by two measured micro-batches when the run begins"),
    key("train.seed", "decides new weights, order and split"),
    key("train.precision", "f32, or bf16 for the products of linear layers; weights and sums stay f32"),
    key(
        "train.checkpointing",
        "compute layers a second time instead of keeping their values: less memory, a third more time",
    ),
    key("train.beta", "how closely preferences hold the model to what it was: lower lets it go further"),
    key(
        "train.balance",
        "factor on a loss that keeps the experts of a mixture evenly used, 0.01 as a rule; 0 for none",
    ),
    key("optimizer.kind", "adamw, adamw8bit (a quarter of its memory), lion, muon, sgd"),
    key("optimizer.lr", "the highest learning rate; 0 for Step Law's, from parameters and tokens"),
    key("optimizer.beta1", "decay of the first moment"),
    key("optimizer.beta2", "decay of the second moment"),
    key("optimizer.eps", "added to the root of the second moment"),
    key("optimizer.momentum", "momentum of sgd and muon"),
    key("optimizer.weight_decay", "decoupled weight decay of matrices"),
    key(
        "optimizer.projection",
        "keep moments of layers' matrices for a few directions of their gradients alone: none, galore, gradnormlorp; with adamw or adamw8bit",
    ),
    key("optimizer.rank", "directions that a projection keeps"),
    key("optimizer.refresh", "steps after which a projection looks for directions anew"),
    key("optimizer.scale", "factor on the steps of what is projected"),
    key("optimizer.clip", "the norm that gradients are clipped to; 0 for none"),
    key("schedule.kind", "wsd (warm-up, stable, decay), cosine, linear, constant"),
    key("schedule.warmup", "steps of the warm-up, or the part of the run if below 1"),
    key("schedule.decay", "steps of wsd's decay, or the part of the run if below 1"),
    key("schedule.curve", "form of wsd's decay: one-minus-sqrt, linear, exponential"),
    key("schedule.last", "the last rate as a part of the highest"),
    key("guard.on", "leave out batches whose loss or gradient spikes, and go back if that does not end"),
    key("guard.deviations", "what is a spike, in scaled median absolute deviations above the median"),
    key("guard.cap", "the part of batches that may be left out"),
    key("validation.every", "steps between validations; 0 for one at the end"),
    key("validation.batches", "micro-batches of a validation at most; 0 for all"),
    key("validation.sample_every", "steps between samples of text; 0 for none"),
    key("validation.prompt", "what samples begin with"),
    key(
        "validation.articles",
        "whose articles do not count where answers are compared: english, french, none",
    ),
    key("output.folder", "the run's folder: model/, checkpoints/, log.jsonl, loss.svg, loss.png"),
    key("output.checkpoint_every", "steps between checkpoints; 0 for one at the end"),
    key("output.keep", "newest checkpoints that stay, besides the best and the end of the stable part"),
    key("output.log_every", "steps between lines of the log"),
];
