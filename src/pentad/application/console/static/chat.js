// A conversation over /v1/chat/completions, streamed, with a stop button and the usage of each answer.

import { events } from "./api.js";
import { $, make, seconds, visible } from "./dom.js";

const history = [];
let running = null;

export function start() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  $("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  });
  $("stop").addEventListener("click", () => running?.abort());
  $("clear").addEventListener("click", clear);
}

export const enter = () => $("prompt").focus();

/** Fills the list of models that can talk. */
export function offer(state) {
  const names = state.models.filter((model) => model.kind === "generate").map((model) => model.name);
  $("model").replaceChildren(...names.map((name) => new Option(name, name)));
}

function clear() {
  running?.abort();
  history.length = 0;
  $("messages").replaceChildren(make("li", "empty", "Ask something. The answer comes from this machine."));
  $("prompt").focus();
}

function add(role, text) {
  const body = make("div", "body", visible(text));
  const meta = make("div", "meta");
  const item = make("li", `message ${role}`, body, meta);
  $("messages").querySelector(".empty")?.remove();
  $("messages").append(item);
  item.scrollIntoView({ block: "end" });
  return { item, body, meta };
}

async function send() {
  const text = $("prompt").value.trim();
  if (!text || running) return;
  $("prompt").value = "";
  history.push({ role: "user", content: text });
  add("user", text);
  const view = add("assistant", "");
  running = new AbortController();
  busy(true, view);
  const answer = { text: "", finish: null, usage: null, first: null, begun: performance.now() };
  try {
    await stream(answer, view, running.signal);
    view.meta.textContent = summary(answer);
    history.push({ role: "assistant", content: answer.text });
  } catch (error) {
    if (error.name === "AbortError") {
      view.meta.textContent = "stopped";
      history.push({ role: "assistant", content: answer.text });
    } else {
      view.item.classList.add("failed");
      view.body.append(visible(`${answer.text ? "\n" : ""}${error.message}`));
      history.pop();
    }
  }
  running = null;
  busy(false, view);
}

function busy(on, view) {
  $("send").hidden = on;
  $("stop").hidden = !on;
  view.item.classList.toggle("live", on);
  if (!on) $("prompt").focus();
}

async function stream(answer, view, signal) {
  const system = $("system").value.trim();
  const body = {
    model: $("model").value,
    messages: [...(system ? [{ role: "system", content: system }] : []), ...history],
    temperature: Number($("temperature").value),
    max_tokens: Number($("max-tokens").value),
    stream: true,
    stream_options: { include_usage: true },
  };
  for await (const { data } of events("POST", "/v1/chat/completions", body, signal)) {
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    answer.usage = chunk.usage ?? answer.usage;
    const choice = chunk.choices?.[0];
    if (!choice) continue;
    answer.finish = choice.finish_reason ?? answer.finish;
    const piece = choice.delta?.content;
    if (!piece) continue;
    answer.first ??= performance.now();
    answer.text += piece;
    view.body.append(visible(piece));
    follow();
  }
}

function follow() {
  const list = $("messages");
  if (list.scrollHeight - list.scrollTop - list.clientHeight < 120) list.scrollTop = list.scrollHeight;
}

function summary(answer) {
  const parts = [];
  const usage = answer.usage;
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    parts.push(`${usage.prompt_tokens} prompt tokens${cached ? ` (${cached} cached)` : ""}`);
    parts.push(`${usage.completion_tokens} generated`);
  }
  if (answer.first) {
    const since = (performance.now() - answer.first) / 1000;
    parts.push(`first after ${seconds((answer.first - answer.begun) / 1000)}`);
    if (usage && since > 0.05) parts.push(`${((usage.completion_tokens - 1) / since).toFixed(1)} tokens/s`);
  }
  if (answer.finish === "length") parts.push("ended at the token limit");
  return parts.join(" · ");
}
