#!/usr/bin/env bash
# Makes one of the models of generated stories again: bash tools/builtin/make.sh builtin|tiny|encoder|large|wide [WORK]
#
# Goes in: tools/builtin/NAME.toml and text of the story generator, made here. Comes out: WORK/NAME-model, an ordinary
# Hugging Face folder in bf16, with its model card. WORK is target/builtin if it is not given; an interrupted run goes on where
# it stopped. Same kind of processor, same bits.
set -euo pipefail
cd "$(dirname "$0")/../.."
name=${1:?name a model: builtin, tiny, encoder, large or wide}
work=${2:-target/builtin}
recipe=$PWD/tools/builtin
assets=$PWD/crates/lab/assets
[ -f "$recipe/$name.toml" ] || { echo "there is no tools/builtin/$name.toml" >&2; exit 2; }

cargo build --release --locked
cargo build --release --locked -p ounce-lab --example stories
bin=${CARGO_TARGET_DIR:-$PWD/target}/release
mkdir -p "$work"
cd "$work"

# Seeds below 1000 are for training, the others are held out.
stories() { [ -f "$1" ] || { "$bin/examples/stories" "${@:2}" > "$1.part" && mv "$1.part" "$1"; }; }
stories train.txt --seed 1 --bytes 80000000 --documents
stories held-out-documents.txt --seed 1001 --bytes 400000 --documents
stories held-out.txt --seed 1001 --bytes 400000

# The language models take the built-in model's vocabulary; the encoder's was learned from the first 12 MB by
# ounce tokenizer train --vocab 2048 --special "[PAD],[UNK],[CLS],[SEP],[MASK]".
mkdir -p encoder-tokenizer && cp "$assets/encoder"/tokenizer*.json encoder-tokenizer/

resume=()
[ -d "$name/checkpoints" ] && resume=(--resume)
"$bin/ounce" train "$recipe/$name.toml" --output "$name" "${resume[@]}"
"$bin/ounce" convert "$name/model" "$name-model" --dtype bf16 --force
if [ "$name" != encoder ]; then
    cp "$assets/builtin/generation_config.json" "$name-model/"
    "$bin/ounce" eval "$name-model" --perplexity held-out.txt --document-separator '\n\n'
fi
echo "$PWD/$name-model"
