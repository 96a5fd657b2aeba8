// What a run asks a person: each pending call with its arguments, and the person's word on it.

import { call } from "./api.js";
import { block, make, moment, notice, pretty, visible } from "./dom.js";

/** A card for each pending approval; `answered(run)` is called with the run as it is afterwards. */
export function approvals(runId, pending, answered) {
  return pending.map((asked) => card(runId, asked, answered));
}

function card(runId, asked, answered) {
  const note = make("input", {
    type: "text",
    maxlength: 2000,
    id: `note-${asked.id}`,
    placeholder: "optional; the model is told when you deny",
  });
  const fields = asked.kind === "input" ? inputs(asked) : [];
  const yes = make("button", { type: "submit", class: "approve" }, asked.kind === "input" ? "Send" : "Approve");
  const no = make("button", { type: "button", class: "danger deny" }, "Deny");
  const form = make(
    "form",
    { class: "card approval", "data-key": `approval ${asked.id}`, "aria-label": `Approval of ${visible(asked.tool)}` },
    make("h2", "", title(asked)),
    asked.message ? make("p", "plain", visible(asked.message)) : null,
    block(pretty(asked.arguments), `Arguments of ${visible(asked.tool)}`),
    fields.map((field) => field.label),
    make("label", "", "Note ", note),
    make("div", "row", yes, no, make("span", "soft", deadline(asked))),
  );
  const send = async (approve) => {
    for (const button of [yes, no]) button.disabled = true;
    try {
      const values =
        approve && asked.kind === "input"
          ? { input: Object.fromEntries(fields.flatMap((field) => field.value())) }
          : {};
      const path = `/v1/runs/${runId}/approvals/${encodeURIComponent(asked.id)}`;
      answered(await call("POST", path, { approve, note: note.value, ...values }));
    } catch (error) {
      notice(error.message);
      for (const button of [yes, no]) button.disabled = false;
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(true);
  });
  no.addEventListener("click", () => send(false));
  return form;
}

function title(asked) {
  const name = visible(asked.tool);
  if (asked.kind === "tools") return `Accept the changed tools of ${name}?`;
  return asked.kind === "input" ? `${name} asks you` : `May ${name} be called?`;
}

function deadline(asked) {
  const from = `Step ${asked.step} · asked ${moment(asked.asked_at)}`;
  return asked.expires_at ? `${from} · waits until ${moment(asked.expires_at)}` : from;
}

/** Fields for the flat object of values that a tool asks for. */
function inputs(asked) {
  const required = new Set(asked.schema?.required ?? []);
  return Object.entries(asked.schema?.properties ?? {}).map(([name, schema], i) => {
    const field = control(schema, `${asked.id}-${i}`, required.has(name));
    const label = make(
      "label",
      "",
      `${visible(schema.title ?? name)} `,
      field,
      schema.description ? make("span", "soft", visible(schema.description)) : null,
    );
    return { label, value: () => valueOf(name, schema, field) };
  });
}

function control(schema, id, required) {
  if (Array.isArray(schema.enum))
    return make(
      "select",
      { id, required },
      schema.enum.map((each) => make("option", {}, visible(each))),
    );
  if (schema.type === "boolean") return make("input", { id, type: "checkbox" });
  const numeric = schema.type === "number" || schema.type === "integer";
  return make("input", {
    id,
    required,
    type: numeric ? "number" : "text",
    step: schema.type === "number" ? "any" : null,
  });
}

function valueOf(name, schema, field) {
  if (Array.isArray(schema.enum)) return [[name, schema.enum[field.selectedIndex]]];
  if (schema.type === "boolean") return [[name, field.checked]];
  if (field.value === "" && !field.required) return [];
  return [[name, field.type === "number" ? Number(field.value) : field.value]];
}
