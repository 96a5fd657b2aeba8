// One answer of a model, asked over /v1/chat/completions and read as it is made.

import { events } from "./api.js";
import { seconds } from "./dom.js";
import { asked } from "./sampling.js";

/** The messages that the server is sent for these turns. */
function messages(chat, turns) {
  const system = (chat.sampling.system ?? "").trim();
  const said = turns.filter((turn) => turn.role === "user" || turn.text);
  return [
    ...(system ? [{ role: "system", content: system }] : []),
    ...said.map((t) => ({ role: t.role, content: content(t) })),
  ];
}

/** A turn's text behind the files that came with it. */
function content(turn) {
  const files = (turn.files ?? []).map((file) => `File ${file.name}:\n${file.text}\n\n`);
  return files.join("") + turn.text;
}

/**
 * Streams the answer to `turns` into `turn` and calls `grown` after each piece. A stopped answer
 * keeps what there is; a failed one has `error`.
 */
export async function generate(chat, turns, turn, signal, grown) {
  const body = {
    ...asked(chat),
    messages: messages(chat, turns),
    stream: true,
    stream_options: { include_usage: true },
  };
  const begun = performance.now();
  let first = null;
  let usage = null;
  let finish = null;
  try {
    for await (const { data } of events("POST", "/v1/chat/completions", { body, signal })) {
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      finish = choice?.finish_reason ?? finish;
      const text = choice?.delta?.content ?? "";
      const thought = choice?.delta?.reasoning_content ?? "";
      if (!text && !thought) continue;
      first ??= performance.now();
      turn.text += text;
      turn.reasoning = (turn.reasoning ?? "") + thought;
      grown();
    }
    turn.made = summary({ usage, finish, begun, first });
  } catch (error) {
    if (error.name === "AbortError") turn.made = "stopped";
    else turn.error = error.message;
  }
  turn.live = false;
}

function summary({ usage, finish, begun, first }) {
  const parts = [];
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    parts.push(`${usage.prompt_tokens} prompt tokens${cached ? ` (${cached} cached)` : ""}`);
    parts.push(`${usage.completion_tokens} generated`);
  }
  if (first) {
    const since = (performance.now() - first) / 1000;
    parts.push(`first after ${seconds((first - begun) / 1000)}`);
    if (usage?.completion_tokens > 1 && since > 0.05)
      parts.push(`${((usage.completion_tokens - 1) / since).toFixed(1)} tokens/s`);
  }
  if (finish === "length") parts.push("ended at the token limit");
  return parts.join(" · ");
}
