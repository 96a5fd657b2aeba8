// Text files that go along with a message. The models here read text, so anything else is refused.

import { make, notice, visible } from "./dom.js";

const MOST_BYTES = 512 * 1024;
const MOST_FILES = 8;

/** The files chosen for the next message: the button, the list, and what takes them. */
export function attachments() {
  let kept = [];
  const input = make("input", {
    type: "file",
    multiple: true,
    class: "hidden",
    id: "files",
    tabindex: -1,
    "aria-label": "Files",
  });
  const button = make(
    "button",
    { class: "quiet", type: "button", title: "Text files", onclick: () => input.click() },
    "Add file",
  );
  const shown = make("ul", { class: "files", "aria-label": "Files to send" });

  function draw() {
    shown.replaceChildren(
      ...kept.map((file) => {
        const drop = make(
          "button",
          { class: "quiet small", type: "button", "aria-label": `Leave out ${file.name}` },
          "×",
        );
        drop.addEventListener("click", () => {
          kept = kept.filter((each) => each !== file);
          draw();
        });
        return make("li", "pill", visible(file.name), " ", drop);
      }),
    );
    shown.hidden = kept.length === 0;
  }

  async function add(files) {
    for (const file of files) {
      try {
        if (kept.length >= MOST_FILES) throw new Error(`a message takes ${MOST_FILES} files at most`);
        kept.push({ name: file.name, text: await read(file) });
      } catch (error) {
        notice(error.message);
      }
    }
    draw();
  }

  input.addEventListener("change", async () => {
    await add(input.files);
    input.value = "";
  });
  draw();
  return {
    button,
    input,
    shown,
    add,
    /** The files, which are then no longer chosen. */
    take() {
      const taken = kept;
      kept = [];
      draw();
      return taken;
    },
  };
}

async function read(file) {
  if (file.size > MOST_BYTES) {
    throw new Error(
      `${file.name} has ${Math.ceil(file.size / 1024)} KiB; files of up to ${MOST_BYTES / 1024} KiB can be sent`,
    );
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes("\0")) return text;
  } catch {
    // Not UTF-8: told below.
  }
  throw new Error(`${file.name} is not a text file in UTF-8; the models here read text`);
}
