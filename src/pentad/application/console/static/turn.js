// One turn of a chat as it is shown: text, files, what it took, and what can be done with it.

import { copyButton, make, visible } from "./dom.js";
import { markdown } from "./markdown.js";
import { choose, versions } from "./chats.js";

/**
 * The item of a turn. `acts` has edit(turn, text), again(turn) and shown(), called when another
 * version was chosen.
 */
export function turnItem(chat, turn, acts) {
  const body = make("div", "body");
  const meta = make("div", "meta");
  const tools = make("div", "turn-tools");
  const item = make(
    "li",
    { class: `message ${turn.role}`, "data-turn": turn.id },
    make("h2", "hidden", turn.role === "user" ? "You" : "Answer"),
    files(turn),
    body,
    meta,
    tools,
  );
  const view = { item, body, meta, tools, turn, chat, acts };
  draw(view);
  return view;
}

/** Writes the turn's present text and state into its item. */
export function draw(view) {
  const { turn, item, body, meta } = view;
  item.classList.toggle("failed", Boolean(turn.error));
  item.classList.toggle("live", Boolean(turn.live));
  item.setAttribute("aria-busy", String(Boolean(turn.live)));
  const shown = turn.role === "assistant" ? markdown(turn.text) : [make("p", "plain", visible(turn.text))];
  body.replaceChildren(...thought(turn), ...(turn.text || turn.live || !turn.error ? shown : []));
  if (turn.error) body.append(make("p", "trouble", visible(turn.error)));
  meta.textContent = turn.made ?? "";
  if (!turn.live) view.tools.replaceChildren(...buttons(view));
}

function thought(turn) {
  if (!turn.reasoning) return [];
  return [make("details", "thought", make("summary", "", "Reasoning"), make("p", "plain", visible(turn.reasoning)))];
}

function files(turn) {
  if (!turn.files?.length) return null;
  return make(
    "ul",
    { class: "files", "aria-label": "Files" },
    turn.files.map((file) => make("li", "pill", visible(file.name))),
  );
}

function buttons({ chat, turn, acts, item, body }) {
  const small = { class: "quiet small", type: "button" };
  const made = [copyButton(() => turn.text, turn.role === "user" ? "your message" : "the answer")];
  if (turn.role === "user") {
    made.push(make("button", { ...small, onclick: () => edit(turn, item, body, acts) }, "Edit"));
  } else {
    made.push(make("button", { ...small, onclick: () => acts.again(turn) }, "Regenerate"));
  }
  return [...made, ...switcher(chat, turn, acts)];
}

function switcher(chat, turn, acts) {
  const all = versions(chat, turn);
  if (all.length < 2) return [];
  const at = all.indexOf(turn);
  const step = (by, sign, label) => {
    const button = make("button", { class: "quiet small", type: "button", "aria-label": label }, sign);
    button.disabled = !all[at + by];
    button.addEventListener("click", () => {
      choose(chat, all[at + by]);
      acts.shown();
    });
    return button;
  };
  return [
    step(-1, "‹", "Version before"),
    make("span", "soft", `${at + 1} of ${all.length}`),
    step(1, "›", "Version after"),
  ];
}

function edit(turn, item, body, acts) {
  const area = make("textarea", { rows: 4, "aria-label": "Edit your message" });
  area.value = turn.text;
  const form = make(
    "form",
    "edit",
    area,
    make(
      "div",
      "row",
      make("button", { type: "submit" }, "Send again"),
      make("button", { class: "quiet", type: "button", onclick: () => acts.shown() }, "Leave it"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (area.value.trim()) acts.edit(turn, area.value.trim());
  });
  item.classList.add("editing");
  body.replaceChildren(form);
  area.focus();
}
