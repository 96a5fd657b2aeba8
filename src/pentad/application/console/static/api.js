// The public HTTP API as the page uses it: JSON calls and server-sent events with the visitor's key.

const KEY = "pentad-key";

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** An answer of the server that is an error, with its own words and status. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

function headers() {
  const secret = key.get();
  return {
    "Content-Type": "application/json",
    ...(secret ? { Authorization: `Bearer ${secret}` } : {}),
  };
}

async function request(method, path, body, signal) {
  let response;
  try {
    // With the origin, since the page's own address may carry credentials, which fetch refuses.
    response = await fetch(location.origin + path, {
      method,
      headers: headers(),
      signal,
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server does not answer", 0);
  }
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new ApiError(told?.error?.message ?? `the server answered ${response.status}`, response.status);
  }
  return response;
}

export async function call(method, path, body) {
  const response = await request(method, path, body);
  return response.status === 204 ? null : response.json();
}

/** The events of a stream as {event, data}, data being text. Ends with the stream or its `[DONE]`. */
export async function* events(method, path, body, signal) {
  const response = await request(method, path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event?.data === "[DONE]") return;
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const event = { event: "message", data: [] };
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "data") event.data.push(value);
    else if (field === "event") event.event = value;
  }
  return event.data.length ? { ...event, data: event.data.join("\n") } : null;
}
