"use strict";
// The page of ounce serve: a chat and a dashboard. It asks nothing but the server it came from.
const $ = (id) => document.getElementById(id);
const base = location.pathname.replace(/\/[^/]*$/, "");
const SETTINGS = ["temperature", "top_p", "top_k", "max_tokens", "seed", "system", "model"];
let messages = [];
let running = null;

const headers = () => {
  const all = { "content-type": "application/json" };
  if ($("key").value) all.authorization = "Bearer " + $("key").value;
  return all;
};
const explain = async (answer) => {
  try { return (await answer.json()).error.message; } catch { return answer.status + " " + answer.statusText; }
};

// What is set stays set, except the key.
for (const name of SETTINGS) {
  const kept = localStorage.getItem("ounce." + name);
  if (kept !== null && name !== "model") $(name).value = kept;
  $(name).addEventListener("change", () => localStorage.setItem("ounce." + name, $(name).value));
}

async function loadModels() {
  try {
    const answer = await fetch(base + "/v1/models", { headers: headers() });
    if (!answer.ok) throw new Error(await explain(answer));
    const models = (await answer.json()).data;
    $("model").replaceChildren(...models.map((model) => new Option(model.id, model.id)));
    const kept = localStorage.getItem("ounce.model");
    if (models.some((model) => model.id === kept)) $("model").value = kept;
    $("status").textContent = "";
  } catch (problem) {
    $("status").textContent = String(problem.message || problem);
  }
}
$("key").addEventListener("change", loadModels);

function bubble(role, text) {
  const box = document.createElement("div");
  box.className = "message " + role;
  box.textContent = text;
  $("messages").append(box);
  box.scrollIntoView({ block: "end" });
  return box;
}

function busy(is) {
  $("send").disabled = is;
  $("stop").disabled = !is;
  $("again").disabled = is || !messages.length;
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    held += value;
    const blocks = held.split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith("data: ")) continue;
      const data = block.slice(6);
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

async function answer() {
  const number = (name) => ($(name).value === "" ? undefined : Number($(name).value));
  const system = $("system").value ? [{ role: "system", content: $("system").value }] : [];
  const request = {
    model: $("model").value, messages: system.concat(messages), stream: true, stream_options: { include_usage: true },
    temperature: number("temperature"), top_p: number("top_p"), top_k: number("top_k"),
    max_tokens: number("max_tokens"), seed: number("seed"),
  };
  running = new AbortController();
  busy(true);
  $("status").textContent = "…";
  const box = bubble("assistant", "");
  const thought = document.createElement("span");
  thought.className = "thought";
  const said = document.createTextNode("");
  box.append(thought, said);
  let content = "";
  const near = () => $("messages").scrollHeight - $("messages").scrollTop - $("messages").clientHeight < 80;
  try {
    const sent = await fetch(base + "/v1/chat/completions", {
      method: "POST", headers: headers(), body: JSON.stringify(request), signal: running.signal,
    });
    if (!sent.ok) throw new Error(await explain(sent));
    for await (const event of events(sent.body)) {
      if (event.error) throw new Error(event.error.message);
      const follow = near();
      const delta = event.choices.length ? event.choices[0].delta : {};
      if (delta.reasoning_content) thought.append(delta.reasoning_content);
      if (delta.content) { content += delta.content; said.data = content; }
      if (event.timings) {
        const facts = document.createElement("span");
        facts.className = "facts";
        const cached = event.timings.cache_n ? `, ${event.timings.cache_n} known` : "";
        facts.textContent = `${event.usage.prompt_tokens} tokens read${cached}, ${event.usage.completion_tokens} written, ` +
          `${event.timings.predicted_per_second.toFixed(1)} a second`;
        box.append(facts);
      }
      if (follow) box.scrollIntoView({ block: "end" });
    }
    $("status").textContent = "";
  } catch (problem) {
    if (problem.name === "AbortError") {
      $("status").textContent = "stopped";
    } else {
      $("status").textContent = "";
      bubble("error", String(problem.message || problem));
    }
  }
  if (content) messages.push({ role: "assistant", content });
  else if (!thought.textContent) box.remove();
  running = null;
  busy(false);
  $("input").focus();
}

function say() {
  const text = $("input").value.trim();
  if (!text || running) return;
  $("input").value = "";
  messages.push({ role: "user", content: text });
  bubble("user", text);
  answer();
}

function again() {
  if (running || !messages.length) return;
  while (messages.length && messages[messages.length - 1].role === "assistant") messages.pop();
  const boxes = [...$("messages").children];
  while (boxes.length && !boxes[boxes.length - 1].classList.contains("user")) boxes.pop().remove();
  if (messages.length) answer();
}

function fresh() {
  if (running) running.abort();
  messages = [];
  $("messages").replaceChildren();
  $("again").disabled = true;
  $("input").focus();
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); say(); });
$("stop").addEventListener("click", () => running && running.abort());
$("again").addEventListener("click", again);
$("new").addEventListener("click", fresh);
$("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); say(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) running.abort();
  if (event.altKey && event.code === "KeyR") { event.preventDefault(); again(); }
  if (event.altKey && event.code === "KeyN") { event.preventDefault(); fresh(); }
});

// Tabs, with the arrow keys as usual.
const tabs = ["chat", "dashboard"];
function show(name) {
  for (const tab of tabs) {
    const chosen = tab === name;
    $(tab).hidden = !chosen;
    $("tab-" + tab).setAttribute("aria-selected", chosen);
    $("tab-" + tab).tabIndex = chosen ? 0 : -1;
  }
  if (name === "dashboard") look();
}
for (const tab of tabs) {
  $("tab-" + tab).addEventListener("click", () => show(tab));
  $("tab-" + tab).addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
    const other = tabs[(tabs.indexOf(tab) + 1) % 2];
    show(other);
    $("tab-" + other).focus();
  });
}

// The dashboard reads what Prometheus reads, once a second while it is seen.
const KEPT = 120;
let history = [];
function read(text) {
  const sums = {};
  for (const line of text.split("\n")) {
    const found = /^(?:vllm:|ounce:)([a-z_0-9]+)(?:\{[^}]*\})? ([0-9.eE+-]+)$/.exec(line);
    if (found) sums[found[1]] = (sums[found[1]] || 0) + Number(found[2]);
  }
  return sums;
}
function line(points, most, second) {
  if (points.length < 2) return "";
  const place = (value, index) => `${((index + KEPT - points.length) / (KEPT - 1)) * 600},${110 - (value / most) * 95}`;
  return `<path class="${second ? "second" : ""}" d="M${points.map(place).join("L")}"></path>`;
}
function draw(id, all, unit) {
  const most = Math.max(1, ...all.flat());
  $(id).innerHTML = all.map((points, index) => line(points, most, index > 0)).join("") +
    `<text x="2" y="12">${most.toFixed(most < 10 ? 1 : 0)} ${unit}</text>`;
}
async function look() {
  if ($("dashboard").hidden) return;
  try {
    const sent = await fetch(base + "/metrics", { headers: headers() });
    if (!sent.ok) throw new Error(await explain(sent));
    const now = read(await sent.text());
    now.time = performance.now();
    history.push(now);
    history = history.slice(-KEPT - 1);
    $("problem").textContent = "";
    const rate = (name) => history.slice(1).map((at, index) =>
      Math.max(0, (at[name] - history[index][name]) / ((at.time - history[index].time) / 1000)));
    const mean = (name) => (now[name + "_count"] ? now[name + "_sum"] / now[name + "_count"] : 0);
    const speed = rate("iteration_tokens_total_sum");
    const share = (part, whole) => (whole ? (100 * part / whole).toFixed(0) + " %" : "none yet");
    const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(0);
    const milliseconds = (seconds) => (1000 * seconds).toFixed(1) + " ms";
    const tiles = {
      "running": now.num_requests_running, "waiting": now.num_requests_waiting,
      "tokens a second": (speed[speed.length - 1] || 0).toFixed(1),
      "to the first token, mean": milliseconds(mean("time_to_first_token_seconds")),
      "between tokens, mean": milliseconds(mean("inter_token_latency_seconds")),
      "in the queue, mean": milliseconds(mean("request_queue_time_seconds")),
      "of the cache's memory in use": (100 * now.kv_cache_usage_perc).toFixed(0) + " %",
      "MiB of weights and cache": mebibytes(now.memory_used_bytes), "MiB they may take": mebibytes(now.memory_budget_bytes),
      "of prompts known before": share(now.prefix_cache_hits_total, now.prefix_cache_queries_total),
      "of guesses right": share(now.spec_decode_num_accepted_tokens_total, now.spec_decode_num_draft_tokens_total),
      "answered": now.request_success_total || 0, "tokens read": now.prompt_tokens_total,
      "tokens written": now.generation_tokens_total, "put back for memory": now.num_preemptions_total,
    };
    $("tiles").replaceChildren(...Object.entries(tiles).map(([name, value]) => {
      const tile = document.createElement("div");
      tile.className = "tile";
      const number = document.createElement("b");
      number.textContent = value;
      const label = document.createElement("span");
      label.textContent = name;
      tile.append(number, label);
      return tile;
    }));
    draw("speed", [speed], "tokens/s");
    draw("load", [history.map((at) => at.num_requests_running), history.map((at) => at.num_requests_waiting)], "");
  } catch (problem) {
    $("problem").textContent = String(problem.message || problem);
  }
}
setInterval(look, 1000);
loadModels();
busy(false);
$("input").focus();
