// Who is here: the key, the sign-in page, and what the server says about itself.

import { ApiError, call, key } from "./api.js";
import { make } from "./dom.js";

/** What GET /v1/engine and /v1/agents last said. */
export const server = { report: null, agents: [] };

/** Models that can talk, the default first. */
export const generators = () => (server.report?.models ?? []).filter((model) => model.kind === "generate");

/** Asks the server what it has. Raises ApiError. */
export async function discover() {
  server.report = await call("GET", "/v1/engine");
  server.agents = server.report.agents ? (await call("GET", "/v1/agents")).data : [];
}

export function signOut() {
  key.set("");
  server.report = null;
}

/** The sign-in page; `opened` is called once the server has taken the key. */
export function signIn(view, opened) {
  document.title = "Sign in · Pentad";
  const input = make("input", {
    id: "key",
    type: "password",
    autocomplete: "current-password",
    spellcheck: "false",
    required: true,
    "aria-describedby": "key-note",
  });
  const trouble = make("p", { class: "trouble", role: "alert" });
  const button = make("button", { type: "submit" }, "Sign in");
  const form = make(
    "form",
    "sign-in card",
    make("h1", "", "Sign in"),
    make("p", "soft", "This server asks for an API key."),
    make("label", "", "API key ", input),
    make("p", { class: "soft", id: "key-note" }, "Kept in this tab only, and forgotten when you close it."),
    trouble,
    button,
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    trouble.textContent = "";
    key.set(input.value.trim());
    try {
      await discover();
      opened();
    } catch (error) {
      const wrong = error instanceof ApiError && error.status === 401;
      trouble.textContent = wrong ? "The server does not know this key." : error.message;
      key.set("");
      input.select();
    }
    button.disabled = false;
  });
  view.replaceChildren(form);
  input.focus();
}
