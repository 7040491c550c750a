// The server's API: requests, their errors in words, and streams of server-sent events.

/** Milliseconds between attempts, where the server names no time. */
const RETRY_MS = 2000;

/** A request that failed. Its message says what happened and what to do. */
class RequestError extends Error {
  constructor(status, error = {}, retryAfter = null) {
    super(RequestError.#sentence(status, error));
    this.status = status;
    this.retryMs = retryAfter > 0 ? Math.min(retryAfter, 60) * 1000 : RETRY_MS;
    this.loading = /loading/i.test(error.message ?? "");
  }

  /** Whether the same request may succeed a little later. */
  get temporary() {
    return this.status === 503 || this.status === 429;
  }

  static #sentence(status, { message, type, n_prompt_tokens: prompt, n_ctx: context }) {
    const said = message ? `“${String(message).slice(0, 500)}”` : `status ${status}`;
    if (status === 0) return "The server cannot be reached. Check that it runs, then retry.";
    if (status === 401) return "The server did not accept the API key.";
    if (type === "exceed_context_size_error") {
      const sizes = prompt && context ? ` (${count(prompt)} tokens, ${count(context)} fit)` : "";
      return `The conversation is too long for the model${sizes}. Start a new chat, or send less text.`;
    }
    if (status === 404) return `The server does not know this request: ${said}. Is it another server?`;
    if (status === 413) return "The conversation is too large for the server. Start a new chat.";
    if (status < 500) return `The server refused the request: ${said}. Change the settings or the text, then retry.`;
    return `The server failed: ${said}. Retry; the server's console may say more.`;
  }
}

/** A number with separators. */
function count(number) {
  return Number(number).toLocaleString("en");
}

/** Fetches a path of the server with the API key. Throws a RequestError. */
async function request(path, options = {}) {
  const headers = { ...options.headers };
  const key = stored(sessionStorage, "anchorite.key");
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    throw error.name === "AbortError" ? error : new RequestError(0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new RequestError(response.status, body?.error, Number(response.headers.get("Retry-After")));
}

/** Waits; an abort ends the wait as an AbortError. */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });
}

/** Yields the JSON of each event of a stream, and returns at its end or at `[DONE]`. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (let part; !(part = await reader.read()).done; ) {
      rest += part.value;
      if (!part.value.includes("\n")) continue;
      const lines = rest.split("\n");
      rest = lines.pop();
      for (const whole of lines) {
        const line = whole.endsWith("\r") ? whole.slice(0, -1) : whole;
        if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } else if (line === "" && data.length) {
          const event = data.join("\n");
          data = [];
          if (event.startsWith("[DONE]")) return;
          yield JSON.parse(event);
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Reads a text that the browser keeps. A browser that keeps nothing gives null. */
function stored(storage, name) {
  try {
    return storage.getItem(name);
  } catch {
    return null;
  }
}

/** Keeps a text in the browser, or removes it with null. Whether that was possible. */
function store(storage, name, text) {
  try {
    if (text === null) storage.removeItem(name);
    else storage.setItem(name, text);
    return true;
  } catch {
    return false;
  }
}
