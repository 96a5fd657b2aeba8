// The public HTTP API as the page uses it: JSON calls and server-sent events with the visitor's key.

const KEY = "pentad-key";
const SILENCE_MS = 60_000;
const RETRY_MS = [300, 1000, 2000, 5000];
/** A browser opens six connections to a server at most; tabs that nobody sees give theirs up. */
const UNSEEN_MS = 30_000;

/** The visitor's key, kept in this tab only. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** An answer of the server that is an error, with its own words and status. 0: no answer at all. */
export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

let locked = () => {};

/** What to do when the server wants a key that it was not given. */
export function onLocked(act) {
  locked = act;
}

async function request(method, path, { body, signal, headers = {} } = {}) {
  const secret = key.get();
  let response;
  try {
    // With the origin, since the page's own address may carry credentials, which fetch refuses.
    response = await fetch(location.origin + path, {
      method,
      headers: {
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(secret ? { Authorization: `Bearer ${secret}` } : {}),
        ...headers,
      },
      signal,
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server does not answer", 0);
  }
  if (response.status === 401) locked();
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    throw new ApiError(told?.error?.message ?? `the server answered ${response.status}`, response.status);
  }
  return response;
}

export async function call(method, path, body) {
  const response = await request(method, path, { body });
  return response.status === 204 ? null : response.json();
}

/** The events of a stream as {event, id, data}, data being text. Ends with the stream or its `[DONE]`. */
export async function* events(method, path, given) {
  const response = await request(method, path, given);
  if (response.status === 204) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      // The server says something every few seconds; a line that is silent for longer is dead.
      const silence = setTimeout(() => reader.cancel().catch(() => {}), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(silence));
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event?.data === "[DONE]") return;
        if (event) yield event;
      }
    }
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError("the connection was cut", 0);
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parse(block) {
  const event = { event: "message", id: null, data: [] };
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "data") event.data.push(value);
    else if (field === "event" || field === "id") event[field] = value;
  }
  return event.data.length ? { ...event, data: event.data.join("\n") } : null;
}

/**
 * The events of a run until it has ended, over as many connections as it takes: after a cut it goes
 * on behind the last event that came. `told(connected)` hears when the line is lost and found again.
 */
export async function* follow(runId, signal, told) {
  let last = null;
  let tries = 0;
  while (!signal.aborted) {
    await seen(signal);
    const line = whileSeen(signal);
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      let any = false;
      for await (const { event, id, data } of events("GET", `/v1/runs/${runId}/events`, {
        signal: line.signal,
        headers,
      })) {
        const record = JSON.parse(data);
        // Only a frame without a name is an error of the stream; events have fields named `error` too.
        if (event === "message") throw new ApiError(record.error?.message ?? "the stream broke", 503);
        if (!any) told(true);
        any = true;
        tries = 0;
        last = id ?? last;
        yield record;
        if (record.type === "run_ended") return;
      }
      if (!any && last !== null && (await ended(runId))) return;
    } catch (error) {
      if (signal.aborted) throw error;
      if (error.name === "AbortError") continue;
      if (error.status >= 400 && error.status < 500 && error.status !== 429) throw error;
    } finally {
      line.end();
    }
    told(false);
    const pause = RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)];
    await new Promise((go) => setTimeout(go, pause));
  }
}

/** Resolves when somebody sees the page, or the signal comes. */
function seen(signal) {
  return new Promise((go) => {
    if (!document.hidden) return go();
    document.addEventListener("visibilitychange", go, { once: true });
    signal.addEventListener("abort", go, { once: true });
  });
}

/** A signal that comes with `outer`, or when the page has not been seen for a while. */
function whileSeen(outer) {
  const inner = new AbortController();
  let timer = null;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => inner.abort(), UNSEEN_MS);
  };
  const stop = () => inner.abort();
  document.addEventListener("visibilitychange", look);
  outer.addEventListener("abort", stop);
  if (outer.aborted) stop();
  return {
    signal: inner.signal,
    end() {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", look);
      outer.removeEventListener("abort", stop);
    },
  };
}

async function ended(runId) {
  return (await call("GET", `/v1/runs/${runId}`)).ended_at !== null;
}
