// Building the page out of text. Nothing here parses HTML, so nothing that a model says can act.

export const $ = (id) => document.getElementById(id);

/** An element with a class and children; strings become text. */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Text with control and bidirectional-override characters made visible. */
export function visible(text) {
  return String(text)
    .replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/gu, "�");
}

export function seconds(value) {
  if (value > 0 && value < 0.001) return `${(value * 1e6).toFixed(0)} µs`;
  return value < 1 ? `${(value * 1000).toFixed(0)} ms` : `${value.toFixed(2)} s`;
}

const NS = "http://www.w3.org/2000/svg";

export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A line of the last readings, scaled from zero to the largest. */
export function sparkline(values) {
  const top = Math.max(...values, 1e-9);
  const step = 100 / Math.max(values.length - 1, 1);
  const points = values.map((v, i) => `${(i * step).toFixed(2)},${(30 - (28 * v) / top).toFixed(2)}`);
  const line = svg("polyline", { class: "spark", points: points.join(" ") });
  return svg("svg", { viewBox: "0 0 100 32", preserveAspectRatio: "none", "aria-hidden": "true" }, line);
}

let timer;

/** Shows a trouble on top of the page for a while. */
export function notice(text) {
  const box = $("notice");
  box.textContent = visible(text);
  box.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => (box.hidden = true), 8000);
}
