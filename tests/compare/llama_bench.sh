#!/usr/bin/env bash
# llama-bench and llama-batched-bench behind one set of flags (-m -p -n -r -t -o json, and -np for sequences at once):
#
#     LLAMA_BIN=/path/to/llama.cpp/build/bin ounce bench speed model.gguf --sequences 8 --against tests/compare/llama_bench.sh
set -euo pipefail
: "${LLAMA_BIN:?names the folder of the llama.cpp programs}"
arguments=("$@")
declare -A option
while (($#)); do option[$1]=$2; shift 2; done
if ((${option[-np]:-1} == 1)); then
    exec "$LLAMA_BIN/llama-bench" "${arguments[@]}"
fi
# A prompt of one token: the generation that follows is what is timed.
"$LLAMA_BIN/llama-batched-bench" -m "${option[-m]}" -t "${option[-t]}" -npp 1 -ntg "${option[-n]}" -npl "${option[-np]}" \
    -c $(((option[-n] + 8) * option[-np])) --output-format jsonl 2>/dev/null |
    sed -n 's/.*"speed_tg": *\([0-9.]*\).*/[{"avg_ts": \1}]/p'
