// The panel of one chat: model, system prompt and how tokens are drawn. An empty field is not sent,
// and the model's own default holds.

import { make } from "./dom.js";
import { generators, server } from "./session.js";

const FIELDS = [
  ["temperature", "Temperature", { min: 0, max: 2, step: 0.05 }],
  ["top_p", "Top p", { min: 0.01, max: 1, step: 0.01 }],
  ["top_k", "Top k", { min: 0, max: 1000, step: 1 }],
  ["min_p", "Min p", { min: 0, max: 1, step: 0.01 }],
  ["max_tokens", "Most tokens", { min: 1, step: 1 }],
  ["seed", "Seed", { min: 0, step: 1 }],
  ["presence_penalty", "Presence penalty", { min: -2, max: 2, step: 0.1 }],
  ["frequency_penalty", "Frequency penalty", { min: -2, max: 2, step: 0.1 }],
  ["repetition_penalty", "Repetition penalty", { min: 0.01, max: 10, step: 0.05 }],
];

/** A select of the models that can talk. */
export function modelSelect(id, chosen, empty = null) {
  const names = generators().map((model) => model.name);
  const select = make(
    "select",
    { id },
    empty === null ? null : make("option", { value: "" }, empty),
    names.map((name) => make("option", { value: name }, name)),
  );
  select.value = names.includes(chosen) ? chosen : empty === null ? (server.report?.default ?? "") : "";
  return select;
}

/** The panel; `changed` is called after every change of the chat's model or sampling. */
export function panel(chat, changed) {
  const model = modelSelect("model", chat.model);
  chat.model = model.value;
  model.addEventListener("change", () => {
    chat.model = model.value;
    changed();
  });
  return make(
    "div",
    "sampling",
    make("label", "", "Model ", model),
    make("label", "", "System prompt ", text(chat, "system", changed, 4)),
    make(
      "div",
      "pairs",
      FIELDS.map(([name, label, limits]) => make("label", "", `${label} `, number(chat, name, limits, changed))),
    ),
    make("label", "", "Stop strings, one a line ", text(chat, "stop", changed, 2)),
    make("p", "soft", "Empty fields take the model's default."),
  );
}

function text(chat, name, changed, rows) {
  const area = make("textarea", { id: name === "stop" ? "stop-strings" : name, rows, placeholder: "none" });
  area.value = chat.sampling[name] ?? "";
  area.addEventListener("change", () => {
    chat.sampling[name] = area.value;
    changed();
  });
  return area;
}

function number(chat, name, limits, changed) {
  const input = make("input", { id: name.replaceAll("_", "-"), type: "number", placeholder: "default", ...limits });
  if (limits.step < 1) input.step = "any";
  input.value = chat.sampling[name] ?? "";
  input.addEventListener("change", () => {
    input.reportValidity();
    if (!input.validity.valid) return;
    chat.sampling[name] = input.value === "" ? null : Number(input.value);
    changed();
  });
  return input;
}

/** The fields of a chat request that the chat's panel sets. */
export function asked(chat) {
  const { system: _, stop, ...numbers } = chat.sampling;
  const set = Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== null && value !== undefined));
  const stops = (stop ?? "").split("\n").filter(Boolean);
  return { model: chat.model, ...set, ...(stops.length ? { stop: stops } : {}) };
}
