// Building the page out of text. Nothing here parses HTML, so nothing that a model says can act.

export const $ = (id) => document.getElementById(id);

/** An element with a class, or attributes and listeners, and children; strings become text. */
export function make(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

const NS = "http://www.w3.org/2000/svg";

export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(NS, tag), attributes, children);
}

function fill(element, attributes, children) {
  const given = typeof attributes === "string" ? { class: attributes || null } : (attributes ?? {});
  for (const [name, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Text with control and bidirectional-override characters made visible. */
export function visible(text) {
  return String(text ?? "")
    .replace(/\r\n/g, "\n")
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/gu, "�");
}

/** The text up to so many characters, with a mark where something is left out. */
export function short(text, most) {
  const characters = [...visible(text).replace(/\s+/g, " ").trim()];
  return characters.length > most ? `${characters.slice(0, most - 1).join("")}…` : characters.join("");
}

export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value > 0 && value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 0.9995) return `${(value * 1000).toFixed(0)} ms`;
  if (value < 60) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const today = () => new Date().toDateString();

/** A Unix time in seconds as a person says it. */
export function moment(at) {
  const date = new Date(at * 1000);
  const clock = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return date.toDateString() === today() ? clock : `${date.toLocaleDateString()} ${clock}`;
}

export const count = (number, noun) => `${number.toLocaleString()} ${noun}${number === 1 ? "" : "s"}`;

/** JSON text in readable form where it is JSON; else as it is. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Text in a box of fixed width, that scrolls and can be reached and copied. */
export function block(text, label) {
  const shown = visible(text);
  return make(
    "div",
    "block",
    make("pre", { tabindex: 0, role: "group", "aria-label": label }, shown || "(empty)"),
    copyButton(() => String(text ?? ""), label),
  );
}

/** A button that copies what `text` returns when it is pressed. */
export function copyButton(text, label) {
  const button = make("button", { class: "quiet small copy", type: "button", "aria-label": `Copy ${label}` }, "Copy");
  button.addEventListener("click", async () => {
    button.textContent = (await copied(text())) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain HTTP from another machine there is no clipboard API.
    const area = make("textarea", { class: "hidden", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

let timer;

/** Shows a trouble on top of the page for a while. */
export function notice(text) {
  const box = $("notice");
  box.firstElementChild.textContent = visible(text);
  box.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => (box.hidden = true), 12000);
}

/** Does the work of a button; the button waits, and a trouble is shown. */
export async function pressed(button, work) {
  button.disabled = true;
  try {
    return await work();
  } catch (error) {
    notice(error.message);
    return null;
  } finally {
    button.disabled = false;
  }
}
