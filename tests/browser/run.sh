#!/usr/bin/env bash
# Opens a report of `ounce fit`, and the page of `ounce serve`, in Chromium, light and dark, wide and narrow: no error, no request to
# others, nothing cut off.
#
# Usage: run.sh [FOLDER]        screenshots go to FOLDER, if one is named
# OUNCE=FILE takes that program; else it is built. Needs node, npm and Chromium; where one is missing it says so and checks nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() {
    echo "the report is not opened in a browser: $*"
    exit 0
}

for tool in node npm; do
    command -v "$tool" >/dev/null || skip "there is no $tool"
done
find_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome || true; }
browser=${CHROMIUM:-$(find_browser)}
# A machine made for one run may be changed; others are their owners'.
if [ -z "$browser" ] && [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ]; then
    (apt-get update && apt-get install -y --no-install-recommends chromium) >/dev/null 2>&1 || true
    browser=$(find_browser)
fi
[ -n "$browser" ] || skip "there is no Chromium (CHROMIUM=… names one)"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
npm install --prefix "$folder" --no-audit --no-fund --silent playwright-core@1 >/dev/null 2>&1 ||
    skip "playwright-core can't be installed"

if [ -z "${OUNCE:-}" ]; then cargo build --quiet --locked -p ounce; fi
ounce=${OUNCE:-${CARGO_TARGET_DIR:-target}/debug/ounce}
"$ounce" fit builtin-tiny --disk 1M --time 1s --calibration-tokens 2048 \
    -o "$folder/small.gguf" >/dev/null 2>"$folder/log" || { cat "$folder/log"; exit 1; }
cp tests/browser/report.mjs "$folder/"
node "$folder/report.mjs" "$browser" "$folder/small.report/report.html" "${1:-}"

# The page of `ounce serve`.
"$ounce" serve builtin-tiny --port 0 >"$folder/address" 2>"$folder/log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 100); do [ -s "$folder/address" ] && break; sleep 0.1; done
cp tests/browser/serve.mjs "$folder/"
node "$folder/serve.mjs" "$browser" "$(sed 's/.* at //' "$folder/address")" "${1:-}"
