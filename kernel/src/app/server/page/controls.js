// The controls around the chat: dialogs, theme, the choice of model, and the start of the page.

// ---- Dialogs ----

/** Asks for the API key. Whether one was given. */
function askKey() {
  const dialog = $("key");
  if (stored(sessionStorage, "anchorite.key")) {
    $("key-why").textContent = "The server did not accept this key. The key is kept until the tab is closed.";
  }
  if (!dialog.open) {
    $("key-value").value = "";
    dialog.returnValue = "";
    dialog.showModal();
  }
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "given"), { once: true });
  });
}

function showSettings() {
  $("system").value = settings.system ?? "";
  for (const name of NUMBERS) field(name).value = settings[name] ?? "";
  $("settings").showModal();
}

const field = (name) => $("settings-form").elements.namedItem(name);

/** Takes the fields that are valid. */
function takeSettings() {
  settings.system = $("system").value.trim() || undefined;
  for (const name of NUMBERS) {
    const { value, validity, valueAsNumber } = field(name);
    if (validity.valid) settings[name] = value === "" ? undefined : valueAsNumber;
  }
  keepSettings();
}

const DARK = window.matchMedia("(prefers-color-scheme: dark)");

/** Shows the theme: the one that was chosen, else the system's. */
function showTheme() {
  const chosen = stored(localStorage, "anchorite.theme");
  const dark = chosen ? chosen === "dark" : DARK.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(dark));
}

function switchTheme() {
  const dark = document.documentElement.dataset.theme !== "dark";
  store(localStorage, "anchorite.theme", dark === DARK.matches ? null : dark ? "dark" : "light");
  showTheme();
}

// ---- The server ----

function showModels(list) {
  const names = list.map(({ id }) => id);
  $("model").replaceChildren(...names.map((name) => new Option(name, name)));
  if (names.includes(settings.model)) $("model").value = settings.model;
  $("model").disabled = names.length === 0;
}

function showDefaults({ default_generation_settings: defaults = {} }) {
  contextSize = defaults.n_ctx ?? 0;
  const values = defaults.params ?? {};
  for (const name of NUMBERS) {
    const value = values[name] ?? (name === "max_tokens" ? values.n_predict : undefined);
    const isOpen = (name === "max_tokens" && value < 0) || (name === "seed" && value === 4294967295);
    const words = { max_tokens: "no limit", seed: "random" };
    if (isOpen || value === undefined) field(name).placeholder = words[name] ?? "server's";
    else field(name).placeholder = String(Math.round(value * 1e4) / 1e4);
  }
}

/** Asks the server for its models and its settings, until it answers. */
async function connect() {
  try {
    const models = await patiently("v1/models", {});
    showModels((await models.json()).data ?? []);
    const props = await request("props").catch(() => null);
    showDefaults(props ? await props.json() : {});
  } catch (error) {
    note(error.message ?? String(error), { label: "Connect", act: connect });
  }
}

// ---- Start ----

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) stop();
  else send();
});
// A double click on Send does not stop the answer.
$("send").addEventListener("click", (event) => event.detail > 1 && event.preventDefault());
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  if (running) stop();
  else if (draft !== null) cancelEdit();
});
document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".code .copy");
  if (button) copy(button.closest(".code").querySelector("code").textContent, button);
});
$("new").addEventListener("click", newChat);
$("theme").addEventListener("click", switchTheme);
DARK.addEventListener("change", showTheme);
$("latest").addEventListener("click", scrollToEnd);
window.addEventListener("scroll", () => ($("latest").hidden ||= isNearEnd()), { passive: true });
$("note-close").addEventListener("click", () => (draft === null ? closeNote() : cancelEdit()));
$("model").addEventListener("change", () => {
  settings.model = $("model").value;
  keepSettings();
});
$("open-settings").addEventListener("click", showSettings);
$("settings").addEventListener("close", takeSettings);
$("settings-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("settings").close();
});
$("reset").addEventListener("click", () => {
  for (const name of NUMBERS) field(name).value = "";
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  store(sessionStorage, "anchorite.key", $("key-value").value.trim());
  $("key").close("given");
});
$("key-cancel").addEventListener("click", () => $("key").close("cancelled"));
window.addEventListener("pagehide", () => running && keep());

showTheme();
restore();
scrollToEnd();
$("message").focus();
connect();
