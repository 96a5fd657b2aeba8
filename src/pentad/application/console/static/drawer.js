// Side panels that narrow screens show one at a time, by a button each.

import { make } from "./dom.js";

/** A bar of buttons that open the panels of `box`; panels are [class, label]. Wide screens show all. */
export function drawers(box, panels) {
  const buttons = panels.map(([name, label]) => {
    const button = make("button", { class: "quiet small", type: "button", "aria-expanded": "false" }, label);
    button.addEventListener("click", () => show(box.dataset.open === name ? "" : name));
    return [name, button];
  });
  function show(name) {
    box.dataset.open = name;
    for (const [each, button] of buttons) button.setAttribute("aria-expanded", String(each === name));
  }
  return {
    bar: make(
      "div",
      "drawer-bar",
      buttons.map(([, button]) => button),
    ),
    close: () => show(""),
  };
}
