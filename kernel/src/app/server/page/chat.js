// The chat: what is shown, what is kept, and what the buttons do.

const $ = (id) => document.getElementById(id);

/** The settings of a request, as the API names them. */
const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"];
/** Milliseconds between two copies of an unfinished answer in the browser's storage. */
const KEEP_MS = 1000;
/** Pixels from the end of the page within which new text scrolls the page. */
const NEAR_END = 80;

/** The conversation: `{ role, content, ended, stats }` each. */
let messages = [];
/** The settings that differ from the server's, by name; `system` and `model` too. */
let settings = {};
/** Tokens that the server's context holds. */
let contextSize = 0;
/** The request under way: its `controller`, and the promise `done`. */
let running = null;
/** The text that an edit put aside. Null: no edit. */
let draft = null;

// ---- What is kept ----

function parsed(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}

function keep() {
  return store(localStorage, "anchorite.chat", JSON.stringify(messages));
}

function keepSettings() {
  store(localStorage, "anchorite.settings", JSON.stringify(settings));
}

function restore() {
  const chat = parsed(stored(localStorage, "anchorite.chat"));
  const isMessage = (one) =>
    (one?.role === "user" || one?.role === "assistant") && typeof one.content === "string";
  if (Array.isArray(chat)) messages = chat.filter(isMessage);
  const kept = parsed(stored(localStorage, "anchorite.settings"));
  if (kept && typeof kept === "object") settings = kept;
  for (const message of messages) show(message);
}

// ---- Notes and status ----

/** Shows a note, with one button at most: `{ label, act }`. */
function note(text, action = null, isError = true) {
  $("note").hidden = false;
  $("note").className = isError ? "error" : "";
  $("note-text").textContent = text;
  $("note-action").hidden = !action;
  $("note-action").textContent = action?.label ?? "";
  $("note-action").onclick = () => {
    closeNote();
    action.act();
  };
}

function closeNote() {
  if ($("note").contains(document.activeElement)) $("message").focus();
  $("note").hidden = true;
  $("note-text").textContent = "";
}

function status(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

// ---- Messages ----

/** Copies a text. Without HTTPS there is no clipboard: then the browser copies a selection. */
async function copy(text, button) {
  let done = false;
  try {
    await navigator.clipboard.writeText(text);
    done = true;
  } catch {
    const area = element("textarea", "unseen");
    area.value = text;
    document.body.append(area);
    area.select();
    done = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = done ? "Copied" : "Not copied";
  status(done ? "Copied." : "The browser did not copy the text.");
  setTimeout(() => (button.textContent = "Copy"), 2000);
}

function action(name, label, description, act) {
  const button = element("button", name, label);
  button.type = "button";
  button.setAttribute("aria-label", description);
  button.addEventListener("click", () => act(button));
  return button;
}

/** Appends a message to the page: its entry, with `body` for the text and `foot` for the figures. */
function show(message) {
  const isUser = message.role === "user";
  const body = element("div", "body");
  const foot = element("p", "foot");
  const actions = element("div", "actions");
  actions.append(action("copy", "Copy", "Copy the message", (button) => copy(message.content, button)));
  if (isUser) actions.append(action("edit", "Edit", "Edit your last message", edit));
  actions.append(action("retry", "Retry", "Retry the last answer", retry));
  const entry = element("li", message.role, element("h2", "unseen", isUser ? "You" : "Model"), body, foot, actions);
  if (isUser) body.append(message.content);
  else if (message.content) new Markdown(body).push(message.content);
  else body.append(element("p", "nothing", "The model ended its answer at once, without text."));
  showFoot(foot, message);
  $("chat").append(entry);
  $("welcome").hidden = true;
  return { entry, body, foot };
}

const ENDINGS = {
  stopped: "Stopped.",
  broken: "The answer was interrupted.",
  length: "Cut at max tokens, or at the end of the context.",
};

function showFoot(foot, { ended, stats }) {
  const parts = [];
  if (ENDINGS[ended]) parts.push(ENDINGS[ended]);
  if (stats?.generated) {
    const rate = stats.perSecond ? ` at ${stats.perSecond.toFixed(1)} tokens/s` : "";
    parts.push(`${count(stats.generated)} tokens${rate}`);
  }
  if (stats?.prompt) {
    const cached = stats.cached ? ` (${count(stats.cached)} cached)` : "";
    const rate = stats.promptPerSecond ? ` at ${stats.promptPerSecond.toFixed(1)} tokens/s` : "";
    parts.push(`${count(stats.prompt)} prompt tokens${cached}${rate}`);
  }
  foot.textContent = parts.join(" · ");
}

function showAll() {
  $("chat").replaceChildren();
  $("welcome").hidden = messages.length > 0;
  for (const message of messages) show(message);
}

const isNearEnd = () =>
  window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - NEAR_END;

function scrollToEnd() {
  window.scrollTo(0, document.documentElement.scrollHeight);
  $("latest").hidden = true;
}

// ---- An answer ----

/** What the API gets: the system prompt, and no two messages of one role in a row. */
function conversation() {
  const sent = settings.system ? [{ role: "system", content: settings.system }] : [];
  for (const { role, content } of messages) {
    if (!content.trim()) continue;
    if (sent.at(-1)?.role === role) sent.at(-1).content += `\n\n${content}`;
    else sent.push({ role, content });
  }
  return sent;
}

/** Repeats a request while the server loads or is full, and asks for a key where it wants one. */
async function patiently(path, options) {
  for (;;) {
    try {
      const response = await request(path, options);
      closeNote();
      return response;
    } catch (error) {
      if (error.status === 401) {
        if (!(await askKey())) throw error;
      } else if (error.temporary) {
        const what = error.loading ? "The server is loading its model" : "The server is busy";
        note(`${what}. The next attempt follows in ${count(error.retryMs / 1000)} s.`, null, false);
        await pause(error.retryMs, options.signal);
      } else {
        throw error;
      }
    }
  }
}

/** Requests an answer to the conversation, and shows it as it comes. */
async function answer() {
  const controller = new AbortController();
  const { signal } = controller;
  let finish;
  running = { controller, done: new Promise((resolve) => (finish = resolve)) };
  const message = { role: "assistant", content: "", ended: "broken" };
  const asked = conversation();
  const view = show(message);
  view.foot.textContent = "";
  $("speech").replaceChildren();
  const text = new Markdown(view.body);
  const speech = new Speech();
  const progress = element("progress");
  progress.setAttribute("aria-label", "Prompt processed");
  view.entry.classList.add("pending");
  view.body.replaceChildren(element("div", "wait", progress, element("span", "", "Waiting for the server")));
  document.body.classList.add("busy");
  $("send").setAttribute("aria-label", "Stop");
  $("send").title = "Stop (Esc)";
  status("Waiting for the answer. Esc stops it.");
  scrollToEnd();

  let failure = null;
  let unseen = "";
  let frame = 0;
  let kept = 0;
  const started = { at: 0, parts: 0 };
  const paint = () => {
    frame = 0;
    if (!unseen) return;
    const follow = isNearEnd();
    text.push(unseen);
    unseen = "";
    const seconds = (performance.now() - started.at) / 1000;
    const rate = seconds > 1 ? ` at about ${(started.parts / seconds).toFixed(1)} tokens/s` : "";
    view.foot.textContent = `${count(started.parts)} tokens${rate}`;
    if (follow) scrollToEnd();
    else $("latest").hidden = false;
  };
  const take = (event) => {
    if (event.error) throw new RequestError(event.error.code ?? 500, event.error);
    const read = event.prompt_progress;
    if (read?.total && !message.content) {
      progress.max = read.total;
      progress.value = read.processed;
      progress.nextSibling.textContent = `Reading the prompt: ${count(read.processed)} of ${count(read.total)} tokens`;
    }
    if (event.usage || event.timings) message.stats = figures(event, message.stats);
    const choice = event.choices?.[0];
    if (choice?.finish_reason) message.ended = choice.finish_reason;
    const added = choice?.delta?.content;
    if (!added) return;
    if (!message.content) {
      messages.push(message);
      started.at = performance.now();
      status("The model answers. Esc stops it.");
    }
    started.parts++;
    message.content += added;
    unseen += added;
    speech.push(added);
    frame ||= requestAnimationFrame(paint);
    if (performance.now() - kept > KEEP_MS) {
      keep();
      kept = performance.now();
    }
  };

  try {
    const numbers = NUMBERS.filter((name) => Number.isFinite(settings[name]));
    const body = {
      ...($("model").value && { model: $("model").value }),
      messages: asked,
      stream: true,
      stream_options: { include_usage: true },
      return_progress: true,
      ...Object.fromEntries(numbers.map((name) => [name, settings[name]])),
    };
    const response = await patiently("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    for await (const event of events(response.body)) take(event);
    if (message.ended === "broken") {
      failure = new Error("The connection ended before the answer did. Retry to have it again.");
    }
  } catch (error) {
    if (signal.aborted) {
      message.ended = "stopped";
      closeNote();
    } else if (error instanceof RequestError) {
      failure = error;
    } else {
      failure = new Error("The connection broke during the answer. Check that the server runs, then retry.");
    }
  }

  cancelAnimationFrame(frame);
  paint();
  if (text.rest) text.render();
  view.entry.classList.remove("pending");
  document.body.classList.remove("busy");
  $("send").setAttribute("aria-label", "Send");
  $("send").title = "Send";
  $("latest").hidden = true;
  if (message.content) {
    showFoot(view.foot, message);
  } else if (failure || message.ended === "stopped") {
    view.entry.remove();
  } else {
    view.entry.remove();
    messages.push(message);
    show(message);
  }
  speech.end(message.ended === "stopped" ? "" : failure ? "" : "End of the answer.");
  if (failure) note(failure.message, { label: "Retry", act: retry });
  if (!keep()) note("The browser does not keep this conversation: it is full, or keeps nothing here.", null, false);
  status(message.ended === "stopped" ? "Stopped." : contextUse(message.stats));
  running = null;
  finish();
}

/** The figures of an answer, from the server's `usage` and `timings`. */
function figures({ usage, timings }, before) {
  const stats = { ...before };
  if (usage) {
    stats.prompt = usage.prompt_tokens;
    stats.generated = usage.completion_tokens;
    stats.cached = usage.prompt_tokens_details?.cached_tokens ?? stats.cached;
  }
  if (timings) {
    stats.perSecond = timings.predicted_per_second;
    stats.promptPerSecond = timings.prompt_per_second;
    stats.cached ??= timings.cache_n;
    stats.generated ??= timings.predicted_n;
    stats.prompt ??= (timings.prompt_n ?? 0) + (timings.cache_n ?? 0);
  }
  return stats;
}

function contextUse(stats) {
  if (!contextSize || !stats?.prompt) return "";
  return `${count(stats.prompt + (stats.generated ?? 0))} of ${count(contextSize)} tokens of the context used`;
}

async function stop() {
  running?.controller.abort();
  await running?.done;
}

/** Sends the message field, in place of the last message if that one is edited. */
function send() {
  const content = $("message").value.trim();
  if (!content || running) return;
  if (draft !== null) {
    messages.length = messages.findLastIndex(({ role }) => role === "user");
    showAll();
  }
  const after = draft ?? "";
  draft = null;
  $("message").value = after;
  closeNote();
  const message = { role: "user", content };
  messages.push(message);
  show(message);
  keep();
  answer();
}

/** Answers the last message of the user again. */
async function retry() {
  await stop();
  const last = messages.findLastIndex(({ role }) => role === "user");
  if (last < 0) return;
  messages.length = last + 1;
  draft = null;
  showAll();
  closeNote();
  keep();
  $("message").focus();
  answer();
}

/** Puts the last message of the user into the message field. */
async function edit() {
  await stop();
  const last = messages.findLast(({ role }) => role === "user");
  if (!last) return;
  draft ??= $("message").value;
  $("message").value = last.content;
  note("You edit your last message. Sending it replaces the message and its answer.", { label: "Cancel", act: cancelEdit }, false);
  $("message").focus();
}

function cancelEdit() {
  const before = draft ?? "";
  draft = null;
  $("message").value = before;
  closeNote();
  $("message").focus();
}

async function newChat() {
  await stop();
  const before = messages;
  const undo = () => {
    messages = before;
    showAll();
    keep();
    scrollToEnd();
  };
  messages = [];
  draft = null;
  showAll();
  keep();
  status("");
  if (before.length) note("A new chat has begun.", { label: "Undo", act: undo }, false);
  $("message").focus();
}
