// Sections, health, theme and key; each section has a module of its own.

import { ApiError, call, key } from "./api.js";
import * as chat from "./chat.js";
import { $, notice } from "./dom.js";
import * as engine from "./engine.js";
import * as runs from "./runs.js";

const SECTIONS = { chat, runs, engine };
const HEALTH_MS = 5000;

function show(name) {
  for (const section of Object.keys(SECTIONS)) {
    const chosen = section === name;
    $(section).hidden = !chosen;
    $(`tab-${section}`).setAttribute("aria-selected", String(chosen));
    $(`tab-${section}`).tabIndex = chosen ? 0 : -1;
    if (!chosen) SECTIONS[section].leave?.();
  }
  SECTIONS[name].enter?.();
  history.replaceState(null, "", `#${name}`);
}

function bindTabs() {
  const names = Object.keys(SECTIONS);
  names.forEach((name) => {
    $(`tab-${name}`).addEventListener("click", () => show(name));
    $(`tab-${name}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const open = names.filter((each) => !$(`tab-${each}`).hidden);
      const next = open[(open.indexOf(name) + step + open.length) % open.length];
      show(next);
      $(`tab-${next}`).focus();
    });
  });
}

async function health() {
  const pill = $("health");
  try {
    await call("GET", "/readyz");
    pill.textContent = "ready";
    pill.className = "pill good";
  } catch (error) {
    const needsKey = error instanceof ApiError && error.status === 401;
    pill.textContent = needsKey ? "key needed" : error.status ? "not ready" : "offline";
    pill.className = "pill bad";
  }
}

function bindTheme() {
  const root = document.documentElement;
  const kept = localStorage.getItem("pentad-theme");
  if (kept) root.dataset.theme = kept;
  $("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = root.dataset.theme ?? (dark ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    localStorage.setItem("pentad-theme", root.dataset.theme);
  });
}

function bindKey() {
  $("key").value = key.get();
  $("key").addEventListener("change", () => {
    key.set($("key").value.trim());
    health();
    discover();
  });
}

/** Asks the server what it has, and lets the sections offer it. */
async function discover() {
  try {
    const state = await call("GET", "/console/stats");
    chat.offer(state);
    await runs.offer(state);
  } catch (error) {
    notice(error.message);
  }
}

bindTabs();
bindTheme();
bindKey();
chat.start();
runs.start();
const asked = location.hash.slice(1);
show(asked in SECTIONS ? asked : "chat");
health();
discover();
setInterval(health, HEALTH_MS);
