// The chat page: saved conversations, the one that is shown, and the panel of its settings.

import { generate } from "./answer.js";
import { attachments } from "./attach.js";
import { add, branch, fresh, list, load, remove, save } from "./chats.js";
import { make, moment, notice, short } from "./dom.js";
import { drawers } from "./drawer.js";
import { panel } from "./sampling.js";
import { server } from "./session.js";
import { draw, turnItem } from "./turn.js";

const DRAW_MS = 80;
const SAVE_MS = 1000;
/** Answers that are being made, by chat; they go on while another page is shown. */
const making = new Map();

const tenant = () => server.report?.tenant ?? "default";
const keep = (chat) => save(chat).catch((error) => notice(error.message));

export function open(view, id, go) {
  document.title = "Chat · Pentad";
  const page = { view, go, chat: null, items: new Map(), closed: false };
  build(page);
  start(page, id);
  return () => {
    page.closed = true;
    if (making.has(page.chat?.id)) making.get(page.chat.id).grown = () => {};
  };
}

function build(page) {
  page.messages = make("ol", { class: "messages", "aria-label": "Conversation" });
  page.said = make("p", { class: "hidden", role: "status" });
  page.prompt = make("textarea", {
    id: "prompt",
    rows: 2,
    "aria-label": "Message",
    placeholder: "Message (Enter sends, Shift+Enter: new line)",
  });
  page.send = make("button", { id: "send", type: "submit" }, "Send");
  page.stop = make("button", { id: "stop", class: "danger", type: "button", hidden: true }, "Stop");
  page.files = attachments();
  const row = make("div", "row", page.files.button, page.files.input, page.prompt, page.send, page.stop);
  page.composer = make("form", "composer", page.files.shown, row);
  page.list = make("ul", { class: "side-list", id: "chat-list" });
  page.settings = make("aside", { class: "side settings", "aria-label": "Settings of this chat" });
  const chats = make(
    "aside",
    { class: "side chats", "aria-label": "Chats" },
    make("a", { class: "button", href: "/console/chat", id: "new-chat" }, "New chat"),
    page.list,
    make("p", "soft", "Kept in this browser."),
  );
  const box = make("div", "chat");
  page.drawers = drawers(box, [
    ["chats", "Chats"],
    ["settings", "Settings"],
  ]);
  const talk = make(
    "div",
    "talk",
    page.drawers.bar,
    make("h1", "hidden", "Chat"),
    page.messages,
    page.said,
    page.composer,
  );
  box.append(chats, talk, page.settings);
  page.view.replaceChildren(box);
  bind(page);
}

function bind(page) {
  page.composer.addEventListener("submit", (event) => {
    event.preventDefault();
    send(page);
  });
  page.prompt.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send(page);
  });
  page.stop.addEventListener("click", () => making.get(page.chat.id)?.control.abort());
  page.composer.addEventListener("dragover", (event) => event.preventDefault());
  page.composer.addEventListener("drop", (event) => {
    event.preventDefault();
    page.files.add(event.dataTransfer.files);
  });
}

async function start(page, id) {
  let chat = making.get(id)?.chat ?? null;
  if (id && !chat) chat = await load(id, tenant()).catch((error) => notice(error.message));
  if (page.closed) return;
  if (id && !chat) notice(`no chat ${id} is kept in this browser`);
  page.chat = chat ?? fresh(tenant(), server.report?.default ?? "", {});
  for (const turn of Object.values(page.chat.turns)) {
    if (turn.live && !making.has(page.chat.id))
      Object.assign(turn, { live: false, made: "stopped: the page was closed" });
  }
  if (page.chat.title) document.title = `${page.chat.title} · Pentad`;
  page.settings.replaceChildren(
    make("h2", "", "Settings"),
    panel(page.chat, () => page.chat.leaf && keep(page.chat)),
  );
  redraw(page);
  if (making.has(page.chat.id)) attach(page);
  if (matchMedia("(min-width: 60rem)").matches) page.prompt.focus();
  await drawList(page);
}

async function drawList(page) {
  const chats = await list(tenant()).catch((error) => (notice(error.message), []));
  const items = chats.map((chat) => {
    const here = chat.id === page.chat.id;
    const link = make(
      "a",
      { href: `/console/chat/${chat.id}`, "aria-current": here && "page" },
      make("span", "goal", short(chat.title, 80)),
      make("span", "soft", moment(chat.used_at / 1000)),
    );
    const drop = make(
      "button",
      { class: "quiet small", type: "button", "aria-label": `Delete chat ${short(chat.title, 40)}` },
      "×",
    );
    drop.addEventListener("click", async () => {
      if (drop.textContent === "×") {
        drop.textContent = "Delete?";
        return;
      }
      making.get(chat.id)?.control.abort();
      await remove(chat.id).catch((error) => notice(error.message));
      if (here) page.go("/console/chat");
      else drawList(page);
    });
    return make("li", "", link, drop);
  });
  if (!page.closed) page.list.replaceChildren(...(items.length ? items : [make("li", "soft", "No chats yet.")]));
}

function redraw(page) {
  const acts = {
    edit: (turn, text) => say(page, turn.parent, text, turn.files),
    again: (turn) => answer(page, turn.parent),
    shown: () => {
      keep(page.chat);
      redraw(page);
    },
  };
  page.items = new Map(branch(page.chat).map((turn) => [turn.id, turnItem(page.chat, turn, acts)]));
  const items = [...page.items.values()].map((view) => view.item);
  const hello = make(
    "li",
    "hello",
    make("p", "hello-title", "Ask something."),
    make("p", "soft", "Conversations are kept in this browser. Model and sampling are chosen under Settings."),
  );
  page.messages.replaceChildren(...(items.length ? items : [hello]));
  page.messages.scrollTop = page.messages.scrollHeight;
}

function send(page) {
  const text = page.prompt.value.trim();
  if (!text || !page.chat || making.has(page.chat.id)) return;
  page.prompt.value = "";
  say(page, page.chat.leaf, text, page.files.take());
}

function say(page, parent, text, files) {
  if (making.has(page.chat.id)) return;
  const { chat } = page;
  const turn = add(chat, parent, { role: "user", text, files: files ?? [] });
  if (!chat.title) {
    chat.title = short(text, 60);
    document.title = `${chat.title} · Pentad`;
    history.replaceState(null, "", `/console/chat/${chat.id}`);
  }
  answer(page, turn.id);
}

async function answer(page, parent) {
  const { chat } = page;
  if (making.has(chat.id)) return;
  chat.leaf = parent;
  const turns = branch(chat);
  const turn = add(chat, parent, { role: "assistant", text: "", live: true });
  const job = { chat, turn, control: new AbortController(), grown: () => {} };
  making.set(chat.id, job);
  redraw(page);
  attach(page);
  page.drawers.close();
  await keep(chat);
  drawList(page);
  let saved = performance.now();
  await generate(chat, turns, turn, job.control.signal, () => {
    job.grown();
    if (performance.now() - saved > SAVE_MS) {
      saved = performance.now();
      keep(chat);
    }
  });
  making.delete(chat.id);
  await keep(chat);
  job.done?.();
}

/** Lets the page show the answer that is being made for its chat. */
function attach(page) {
  const job = making.get(page.chat.id);
  let due = null;
  const now = () => {
    due = null;
    const view = page.items.get(job.turn.id);
    if (!view || page.closed) return;
    const low = page.messages.scrollHeight - page.messages.scrollTop - page.messages.clientHeight < 120;
    draw(view);
    if (low) page.messages.scrollTop = page.messages.scrollHeight;
  };
  job.grown = () => (due ??= setTimeout(now, DRAW_MS));
  job.done = () => {
    clearTimeout(due);
    if (page.closed || page.chat !== job.chat) return;
    now();
    busy(page, false);
    page.said.textContent = job.turn.error ? "The answer failed." : "The answer is complete.";
    drawList(page);
  };
  busy(page, true);
}

function busy(page, on) {
  page.send.hidden = on;
  page.stop.hidden = !on;
  if (!on && document.activeElement === document.body) page.prompt.focus();
}
