// Markdown of a model as elements. `marked` only splits the text into tokens; every element is made
// here, so HTML in the text stays text, no picture is loaded, and a link shows where it leads.

import { copyButton, make, short, visible } from "./dom.js";
import { lexer } from "./vendor/marked.js";

const MOST = 60_000;
const DEPTH = 24;
const SCHEMES = new Set(["http:", "https:", "mailto:"]);
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

/** The level of the last heading in the text that is being built. */
let heading = 2;

/** The elements of a text; plain text where it is too long or too deep to be read as Markdown. */
export function markdown(text) {
  const source = String(text ?? "");
  if (source.length > MOST) return [make("p", "plain", visible(source))];
  try {
    heading = 2;
    return blocks(lexer(source, { gfm: true, breaks: true }), 0);
  } catch {
    return [make("p", "plain", visible(source))];
  }
}

const blocks = (tokens, depth) => tokens.flatMap((token) => asBlock(token, depth) ?? []);

function asBlock(token, depth) {
  if (depth > DEPTH) return make("p", "plain", visible(token.raw));
  switch (token.type) {
    case "space":
      return null;
    case "heading":
      // Below the page's own headings, and never more than one level deeper than the one before.
      heading = Math.min(6, token.depth + 2, heading + 1);
      return make(`h${heading}`, "", inline(token.tokens, depth));
    case "code":
      return code(token);
    case "hr":
      return make("hr");
    case "blockquote":
      return make("blockquote", "", blocks(token.tokens, depth + 1));
    case "list":
      return list(token, depth);
    case "table":
      return table(token, depth);
    case "paragraph":
    case "text":
      return make("p", "", token.tokens ? inline(token.tokens, depth) : words(token));
    default:
      return make("p", "plain", visible(token.raw));
  }
}

function code(token) {
  const language = short(token.lang ?? "", 24);
  const label = language ? `code in ${language}` : "code";
  return make(
    "div",
    "code",
    make(
      "div",
      "code-bar",
      make("span", "", language || "code"),
      copyButton(() => token.text, label),
    ),
    make("pre", { tabindex: 0, role: "group", "aria-label": label }, make("code", "", visible(token.text))),
  );
}

function list(token, depth) {
  const items = token.items.map((item) => {
    const box = item.task ? make("span", "task", item.checked ? "☑ " : "☐ ") : null;
    return make(
      "li",
      "",
      box,
      item.tokens.flatMap((each) => loose(each, depth + 1)),
    );
  });
  const start = token.ordered && Number.isSafeInteger(token.start) && token.start !== 1 ? token.start : null;
  return make(token.ordered ? "ol" : "ul", { start }, items);
}

/** A tight list's text stands in its item without a paragraph. */
function loose(token, depth) {
  if (token.type === "checkbox") return [];
  if (token.type === "text") return token.tokens ? inline(token.tokens, depth) : [words(token)];
  return asBlock(token, depth) ?? [];
}

function table(token, depth) {
  const cells = (row, tag) => row.map((cell) => make(tag, "", inline(cell.tokens, depth)));
  return make(
    "div",
    { class: "table", tabindex: 0, role: "group", "aria-label": "table" },
    make(
      "table",
      "",
      make("thead", "", make("tr", "", cells(token.header, "th"))),
      make(
        "tbody",
        "",
        token.rows.map((row) => make("tr", "", cells(row, "td"))),
      ),
    ),
  );
}

const inline = (tokens, depth) => (tokens ?? []).flatMap((token) => asInline(token, depth + 1));

function asInline(token, depth) {
  if (depth > DEPTH) return visible(token.raw);
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return make(token.type, "", inline(token.tokens, depth));
    case "codespan":
      return make("code", "", visible(token.text));
    case "br":
      return make("br");
    case "link":
      return link(token.href, inline(token.tokens, depth), token.text);
    case "image":
      return link(token.href, [`picture: ${visible(token.text) || "without a name"}`], null);
    case "text":
    case "escape":
      return token.tokens ? inline(token.tokens, depth) : words(token);
    default:
      return visible(token.raw);
  }
}

/** A link that shows its target and tells it nothing; anything but the web and mail stays text. */
function link(href, children, text) {
  let target;
  try {
    target = new URL(entities(href));
  } catch {
    target = null;
  }
  if (target === null || !SCHEMES.has(target.protocol)) return [...children, ` (${short(href, 80)})`];
  const same = text !== null && [target.href, target.href.replace(/\/$/, "")].includes(text);
  return make(
    "a",
    { href: target.href, target: "_blank", rel: "noopener noreferrer nofollow", title: target.href },
    children,
    same ? null : make("span", "target", ` (${short(target.href, 80)})`),
  );
}

const words = (token) => visible(entities(token.text));

function entities(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(amp|lt|gt|quot|apos|nbsp));/gi, (whole, ten, hex, name) => {
    if (name) return ENTITIES[name.toLowerCase()];
    const point = ten ? Number(ten) : parseInt(hex, 16);
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}
