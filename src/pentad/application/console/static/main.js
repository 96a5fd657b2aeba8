// The shell: which page an address shows, the theme, the server's health, and signing in and out.

import { call, key, onLocked } from "./api.js";
import { $, notice } from "./dom.js";
import { discover, server, signIn, signOut } from "./session.js";

/** Each page's addresses and its module, which is loaded when the page is first shown. */
const PAGES = {
  runs: [/^\/console\/runs(?:\/([\w-]+))?$/, () => import("./runs.js")],
  engine: [/^\/console\/engine$/, () => import("./engine.js")],
  chat: [/^\/console(?:\/chat(?:\/([\w-]+))?)?$/, () => import("./chat.js")],
};
const HEALTH_MS = 5000;
let leave = null;
let shows = 0;
let signingIn = false;

/** Shows the page of the present address. */
async function show() {
  const turn = ++shows;
  close();
  const found = Object.keys(PAGES).find((name) => PAGES[name][0].test(location.pathname));
  const name = found ?? "chat";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const [form, load] = PAGES[name];
  const page = await load();
  // Another address may have been asked for while the module came.
  if (turn === shows && !signingIn) leave = page.open($("view"), form.exec(location.pathname)?.[1] ?? null, go);
}

function close() {
  leave?.();
  leave = null;
}

function go(path, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  show();
}

function bindLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='/console']");
    const plain = !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey && event.button === 0;
    if (!link || !plain || link.target) return;
    event.preventDefault();
    if (link.getAttribute("href") !== location.pathname + location.search) go(link.getAttribute("href"));
  });
  window.addEventListener("popstate", () => signingIn || show());
}

async function health() {
  if (document.hidden || signingIn) return;
  const pill = $("health");
  let [text, good] = ["ready", true];
  try {
    await call("GET", "/readyz");
  } catch (error) {
    if (error.status === 401) return;
    [text, good] = [error.status ? "not ready" : "offline", false];
  }
  if (pill.textContent !== text) pill.textContent = text;
  pill.className = `pill ${good ? "good" : "bad"}`;
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
    document.dispatchEvent(new Event("themed"));
  });
}

function ask() {
  if (signingIn) return;
  signingIn = true;
  close();
  $("sign-out").hidden = true;
  $("health").textContent = "signed out";
  $("health").className = "pill";
  signIn($("view"), begin);
}

function begin() {
  signingIn = false;
  $("sign-out").hidden = !key.get();
  $("nav-runs").hidden = !server.report?.agents;
  show();
  health();
}

bindTheme();
bindLinks();
onLocked(ask);
$("notice").lastElementChild.addEventListener("click", () => ($("notice").hidden = true));
$("sign-out").addEventListener("click", () => {
  signOut();
  ask();
});
try {
  await discover();
  begin();
} catch (error) {
  if (error.status !== 401) {
    notice(error.message);
    begin();
  }
}
setInterval(health, HEALTH_MS);
