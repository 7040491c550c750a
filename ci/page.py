#!/usr/bin/env python3
"""Tests the chat page in a browser: Debian's Chromium, without a screen, by its driver.

    ci/page.py BASE_URL OUT_DIR    against a server, such as http://127.0.0.1:8080
    ci/page.py --fake [OUT_DIR]    against a small server in this script, which also fails, stalls and loads

OUT_DIR gets the screenshots; target/page is the default. API_KEY in the environment is the server's key.
Where there is no browser, all is skipped. The end is the line `page: N passed, N failed, N skipped`.
"""

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import time
import traceback
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "target/tools/page"
# Seconds that an answer may take; under emulation a prompt takes some.
PATIENCE = float(os.environ.get("PATIENCE", "120"))


def usage():
    print(__doc__.strip(), file=sys.stderr)
    sys.exit(2)


def skip_all(reason):
    print(f"skipped     page: {reason}")
    print("page: 0 passed, 0 failed, 1 skipped")
    sys.exit(0)


if __name__ == "__main__":
    if not (len(sys.argv) == 3 or sys.argv[1:2] == ["--fake"]) or len(sys.argv) > 3:
        usage()
    for command in ("chromium", "chromedriver"):
        if not shutil.which(command):
            skip_all(f"no {command} (ci/setup.sh page)")
    python = ENVIRONMENT / "bin/python"
    if pathlib.Path(sys.prefix) != ENVIRONMENT:
        if not python.exists():
            skip_all("no selenium (ci/setup.sh page)")
        os.execv(python, [python, __file__, *sys.argv[1:]])

from selenium import webdriver  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

import page_fake  # noqa: E402

# What a hostile or a broken model may write. Each would show itself by `window.hacked`, by an element that the
# page never makes, or by a request.
HOSTILE = [
    "<img src=x onerror=\"window.hacked=1\"> <svg onload=window.hacked=1> <script>window.hacked=1</script>",
    "[a](javascript:window.hacked=1) [b](JaVaScRiPt:window.hacked=1) [c](data:text/html,<script>window.hacked=1</script>)",
    "[d](  java\tscript:window.hacked=1) [e](vbscript:x) [f](//evil.example/) [g](/v1/models) <javascript:window.hacked=1>",
    "![tracker](https://evil.example/pixel.png) ![x](x\" onerror=\"window.hacked=1)",
    "[h](https://evil.example/\"onmouseover=\"window.hacked=1\") https://evil.example/\"onclick=\"window.hacked=1",
    "| <b>a</b> | <img src=x onerror=window.hacked=1> |\n|---|---|\n| `<i>` | [t](javascript:window.hacked=1) |",
    "# <h1 onclick=window.hacked=1>head</h1>\n\n> <iframe src=javascript:window.hacked=1></iframe>\n\n- <style>*{display:none}</style>",
    "```html\" onmouseover=\"window.hacked=1\n<img src=x onerror=window.hacked=1>\n</code></pre><script>window.hacked=1</script>",
]
# Texts in which a careless parser takes quadratic time or too deep a nesting, by their length.
PATHOLOGICAL = {
    "backticks": lambda n: "`" * n,
    "backtick runs": lambda n: " ".join("`" * (i % 300 + 1) for i in range(n // 150))[:n],
    "code spans": lambda n: "`a`b" * (n // 4),
    "brackets": lambda n: "[" * n,
    "images": lambda n: "![" * (n // 2),
    "link starts": lambda n: "[a](" * (n // 4),
    "link targets": lambda n: "[a](b" * (n // 5),
    "empty links": lambda n: "[](" * (n // 6) + ")" * (n // 2),
    "stars": lambda n: "*" * n,
    "emphasis starts": lambda n: "*a **b " * (n // 7),
    "emphasis ends": lambda n: "a* b** " * (n // 7),
    "mixed emphasis": lambda n: "*a_ " * (n // 4),
    "nested emphasis": lambda n: "*a _b " * (n // 10) + "c_ d* " * (n // 10),
    "quotes": lambda n: "> " * (n // 2) + "x",
    "nested lists": lambda n: "\n".join(" " * (2 * (i % 60)) + "- x" for i in range(n // 63)),
    "items": lambda n: "- x\n" * (n // 4),
    "one line": lambda n: "word " * (n // 5),
    "spaces": lambda n: " " * n + "x",
    "spaces in a heading": lambda n: "# a" + " " * n + "#x",
    "bars": lambda n: "|" * n + "\n" + "|-" * (n // 2) + "|",
    "table": lambda n: "|a|b|\n|-|-|\n" + "|c|d|\n" * (n // 6),
    "bars without a table": lambda n: "a|b\n-|-|-\n" * (n // 10),
    "fence": lambda n: "```\n" + "code line\n" * (n // 10),
    "URLs": lambda n: "http://" * (n // 7),
    "open angles": lambda n: "<http://a" * (n // 9),
    "URL of stops": lambda n: "http://a" + "." * n,
}
# A text with all that the page renders.
SAMPLE = """# Tides

The sea *rises* and **falls** twice a day; a ***spring tide*** is ~~lower~~ higher. See `moon.phase()` and
[the tables](https://example.org/tides_(2026)?a=1&b=2 "tables"), or https://example.org/now.

1. New moon
2. Full moon
   - with *sun*
   - without
     1. deep
3. Between, 2 * 3 * 4 and snake_case_name

> A quote of `code`
> and **more**

| Place | Height | Note |
|:------|-------:|:----:|
| Brest | 6.1 m  | `ok` |
| Bay \\| Fundy | 16 m | **most** |

```python
def height(hours):
    return 3.2 * cos(hours / 12.42 * TAU)  # <b>metres</b>
```

---

Last line \\*not emphasis\\* é 漢字 🌊
next line
"""


class Failed(Exception):
    """A check that does not hold."""


def expect(holds, what):
    if not holds:
        raise Failed(what)


class Page:
    """The page in the browser, by what people do with it."""

    def __init__(self, base, out):
        self.base = base.rstrip("/")
        self.out = out
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ("headless=new", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars", "lang=en"):
            options.add_argument(f"--{argument}")
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
        self.driver.set_script_timeout(PATIENCE)
        self.emulate()
        self.size(1100, 800)

    def size(self, width, height):
        """Chromium's own window is never narrower than 500 pixels, so the size is emulated."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def emulate(self, scheme="light", motion="no-preference"):
        features = [("prefers-color-scheme", scheme), ("prefers-reduced-motion", motion)]
        features = [{"name": name, "value": value} for name, value in features]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def until(self, script, what, *arguments, seconds=None):
        """Waits until the script's value is true, and returns it."""
        end = time.monotonic() + (seconds or PATIENCE)
        while time.monotonic() < end:
            value = self.js(f"return {script}", *arguments)
            if value:
                return value
            time.sleep(0.05)
        raise Failed(f"not within {seconds or PATIENCE} s: {what}; the page says: {self.js('return document.body.innerText')!r}")

    def open(self):
        """Opens the page in a browser that has kept nothing."""
        self.driver.get(self.base + "/")
        self.js("running?.controller.abort(); addEventListener('pagehide', () => localStorage.clear()); sessionStorage.clear()")
        if os.environ.get("API_KEY"):
            self.js("sessionStorage.setItem('anchorite.key', arguments[0])", os.environ["API_KEY"])
        self.driver.get(self.base + "/")
        self.connected()

    def connected(self):
        self.until("!document.getElementById('model').disabled", "the choice of model", seconds=20)
        self.until("document.querySelector('[name=seed]').placeholder", "the server's settings", seconds=20)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def click(self, selector):
        self.find(selector).click()

    def keys(self, *keys):
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_back(self):
        ActionChains(self.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def count(self, selector):
        return self.js("return document.querySelectorAll(arguments[0]).length", selector)

    def focused(self):
        return self.js("const e = document.activeElement; return e.id || e.className || e.localName")

    def messages(self):
        """Role and text of each message that is shown."""
        script = """return [...document.querySelectorAll('#chat > li')]
            .map((entry) => [entry.classList[0], entry.querySelector('.body').innerText.trim()])"""
        return [tuple(message) for message in self.js(script)]

    def send(self, text):
        """Types a message and presses Enter."""
        field = self.find("#message")
        field.click()
        field.send_keys(text, Keys.ENTER)

    def idle(self):
        self.until("!running", "the end of the answer")

    def answered(self):
        """Waits for an answer, which begins with text, and returns it."""
        self.idle()
        role, text = self.messages()[-1]
        expect(role == "assistant" and text, f"no answer: {self.messages()}, note {self.text('#note-text')!r}")
        return text

    def ask(self, text):
        self.send(text)
        return self.answered()

    def settings(self, **values):
        self.click("#open-settings")
        for name, value in values.items():
            field = self.find("#system" if name == "system" else f"#settings [name={name}]")
            field.clear()
            field.send_keys(str(value))
        self.click("#settings .main")

    def seed(self, *messages):
        """Opens the page with a conversation that the browser has kept."""
        kept = [{"role": role, "content": content, "ended": "stop"} for role, content in messages]
        self.open()
        script = "const kept = arguments[0]; addEventListener('pagehide', () => localStorage.setItem('anchorite.chat', kept))"
        self.js(script, json.dumps(kept))
        self.driver.refresh()
        self.connected()

    def errors(self):
        """What the console has reported since the last call: violations of the policy, exceptions."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]

    def shot(self, name):
        self.driver.save_screenshot(str(self.out / f"{name}.png"))

    def axe(self, where):
        """Runs axe-core over the page."""
        if not self.js("return typeof axe === 'object'"):
            self.js(AXE)
        script = """const done = arguments[arguments.length - 1];
            axe.run(document, { resultTypes: ["violations"] }).then(
                ({ violations }) => done(violations.map(({ id, nodes }) => [id, nodes.map((n) => n.html + " " + n.failureSummary)])),
                (error) => done([["axe", [String(error)]]]))"""
        found = self.driver.execute_async_script(script)
        expect(not found, f"{where}: " + json.dumps(found, indent=1))


def axe_source():
    """axe-core, of the package whose browser is another one."""
    return next(ENVIRONMENT.glob("lib/python3*/site-packages/axe_playwright_python/axe.min.js")).read_text()


# ---- Tests against any server ----


def headers(page):
    """The policy's hashes are those of the page; the ETag is answered by 304."""
    # Without the header, the server takes the client for one of ollama's.
    html = {"Accept": "text/html"}
    asked = urllib.request.Request(page.base + "/", headers=html)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        body, received = answer.read(), answer.headers
    policy = received["Content-Security-Policy"]
    for directive, tag in (("script-src", b"script"), ("style-src", b"style")):
        text = re.search(b"<" + tag + b">(.*?)</" + tag + b">", body, re.S)[1]
        value = "sha256-" + base64.b64encode(hashlib.sha256(text).digest()).decode()
        expect(f"{directive} '{value}'" in policy, f"{directive} is not {value}: {policy}")
    for directive in ("default-src 'none'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        expect(directive in policy, f"no {directive}: {policy}")
    expect(received["X-Content-Type-Options"] == "nosniff", "no nosniff")
    expect(received["Content-Type"].lower() == "text/html; charset=utf-8", received["Content-Type"])
    again = urllib.request.Request(page.base + "/", headers=html | {"If-None-Match": received["ETag"]})
    try:
        urllib.request.urlopen(again, timeout=20)
    except urllib.error.HTTPError as error:
        expect(error.code == 304, f"status {error.code}")
    else:
        raise Failed("the ETag is not answered by 304")
    with urllib.request.urlopen(page.base + "/index.html", timeout=20) as answer:
        expect(answer.read() == body, "/index.html is another page")


def opens(page):
    page.open()
    expect(page.driver.title == "Anchorite", page.driver.title)
    expect(page.focused() == "message", f"the focus is on {page.focused()}")
    expect(page.js("return document.getElementById('model').value"), "no model is chosen")
    expect(page.text("#welcome h2"), "no welcome")
    page.click("#open-settings")
    placeholders = page.js("return NUMBERS.map((name) => field(name).placeholder)")
    expect(all(placeholders), f"settings without the server's value: {placeholders}")
    expect(any(re.fullmatch(r"[\d.]+", text) for text in placeholders), f"no number of /props: {placeholders}")
    page.keys(Keys.ESCAPE)


def holds_a_chat(page):
    page.open()
    page.settings(max_tokens=24, seed=7)
    page.send("Once upon a time there was a red ball.")
    page.until("document.body.classList.contains('busy') || messages.length > 1", "an answer under way", seconds=5)
    page.answered()
    foot = page.text("#chat > li:last-child .foot")
    expect(re.search(r"\d+ tokens at [\d.]+ tokens/s", foot), f"no rate: {foot!r}")
    expect(re.search(r"\d+ prompt tokens", foot), f"no prompt tokens: {foot!r}")
    page.find("#message").send_keys("one line", Keys.SHIFT + Keys.ENTER + Keys.NULL, "another line")
    expect(len(page.messages()) == 2, "Shift+Enter sends")
    expect(page.js("return document.getElementById('message').value") == "one line\nanother line", "no new line")
    page.find("#message").send_keys(Keys.ENTER)
    page.answered()
    expect([role for role, _ in page.messages()] == ["user", "assistant"] * 2, f"roles: {page.messages()}")
    expect("cached" in page.text("#chat > li:last-child .foot"), f"no cached tokens: {page.text('#chat > li:last-child .foot')!r}")
    expect(page.focused() == "message", f"the focus is on {page.focused()}")
    expect(page.text("#status"), "no figure of the context")
    page.shot("chat-light")


def stops(page):
    page.open()
    page.settings(max_tokens=2000)
    page.send("Tell a slow and long story of a frog.")
    page.until("messages.length === 2 && messages[1].content.length > 3", "text")
    expect(page.find("#send").accessible_name == "Stop", page.find("#send").accessible_name)
    page.shot("streaming")
    page.keys(Keys.ESCAPE)
    page.idle()
    text = page.answered()
    expect(page.text("#chat > li:last-child .foot").startswith("Stopped."), page.text("#chat > li:last-child .foot"))
    time.sleep(0.5)
    expect(page.messages()[-1][1] == text, "text came after the stop")
    expect(page.find("#send").accessible_name == "Send", page.find("#send").accessible_name)
    # The other way, by the button, and at once.
    page.send("Tell a slow and long story of a toad.")
    page.until("running", "an answer under way", seconds=5)
    page.click("#send")
    page.idle()
    page.settings(max_tokens=8)
    expect(page.ask("And now?"), "no answer after a stop")


def resumes(page):
    page.open()
    page.settings(max_tokens=12, system="Answer in one sentence.", temperature=0)
    page.ask("What is a tide?")
    before = page.messages()
    page.driver.refresh()
    page.connected()
    expect(page.messages() == before, f"after a reload: {page.messages()}, before: {before}")
    kept = page.js("return [settings.system, settings.max_tokens, settings.temperature]")
    expect(kept == ["Answer in one sentence.", 12, 0], f"settings: {kept}")
    expect("tokens/s" in page.text("#chat > li:last-child .foot"), "the figures are lost")
    page.ask("Why?")
    expect(len(page.messages()) == 4, f"no chat goes on: {page.messages()}")
    # In the middle of an answer.
    page.settings(max_tokens=2000)
    page.send("Tell a slow and long story of a frog.")
    page.until("messages.length === 6 && messages.at(-1).content.length > 3", "text")
    # A tab that crashes has kept nearly all of it.
    kept = "JSON.parse(localStorage.getItem('anchorite.chat'))"
    page.until(f"{kept}.length === 6 && {kept}[5].content.length > 0", "a copy of the unfinished answer")
    page.until(f"{kept}[5].content.length > arguments[0]", "a later copy", page.js(f"return {kept}[5].content.length"))
    expect(page.js("return Boolean(running)"), "the answer ended too early for this test")
    page.driver.refresh()
    page.connected()
    expect(len(page.messages()) == 6 and page.messages()[-1][1], f"the text is lost: {page.messages()}")
    expect("interrupted" in page.text("#chat > li:last-child .foot"), page.text("#chat > li:last-child .foot"))


def edits_and_retries(page):
    page.open()
    page.settings(max_tokens=8)
    page.ask("Say one.")
    page.ask("Say two.")
    visible = "[...document.querySelectorAll('#chat button')].filter((b) => b.offsetParent).map((b) => b.textContent)"
    shown = page.js(f"return {visible}")
    expect(shown == ["Copy", "Copy", "Copy", "Edit", "Copy", "Retry"], f"buttons: {shown}")
    page.click("#chat > li:last-child .retry")
    page.answered()
    expect(len(page.messages()) == 4, f"after a retry: {page.messages()}")
    page.find("#message").send_keys("a draft")
    edit = "#chat > li:nth-last-child(2) .edit"
    page.click(edit)
    expect(page.js("return document.getElementById('message').value") == "Say two.", "the message is not edited")
    page.keys(Keys.ESCAPE)
    expect(page.js("return document.getElementById('message').value") == "a draft", "the draft is lost")
    expect(len(page.messages()) == 4, "a cancelled edit changes the chat")
    page.click(edit)
    page.find("#message").clear()
    page.send("Say three.")
    page.answered()
    expect([text for role, text in page.messages() if role == "user"] == ["Say one.", "Say three."], f"{page.messages()}")
    expect(page.js("return document.getElementById('message').value") == "a draft", "the draft is lost")


def new_chat(page):
    page.open()
    page.settings(max_tokens=8)
    page.ask("Say one.")
    before = page.messages()
    page.click("#new")
    page.until("!messages.length", "an empty chat", seconds=5)
    expect(page.messages() == [] and page.text("#welcome h2"), "the chat is not empty")
    page.click("#note-action")
    expect(page.messages() == before, f"brought back: {page.messages()}, before: {before}")
    page.click("#new")
    page.until("!messages.length", "an empty chat", seconds=5)
    page.driver.refresh()
    page.connected()
    expect(page.messages() == [], "the old chat is back")
    # In the middle of an answer.
    page.settings(max_tokens=2000)
    page.send("Tell a slow and long story of a frog.")
    page.until("messages.length === 2", "text")
    page.click("#new")
    page.until("!messages.length && !running", "an empty chat", seconds=10)
    time.sleep(0.5)
    expect(page.messages() == [], f"the answer goes on: {page.messages()}")


def runs_nothing_of_the_model(page):
    page.errors()
    page.seed(*((role, text) for text in HOSTILE for role, text in (("user", text), ("assistant", text))))
    page.js("""
        for (const link of document.querySelectorAll("#chat a")) {
            link.addEventListener("click", (event) => event.preventDefault());
            link.click();
        }
        for (const one of document.querySelectorAll("#chat *")) {
            for (const type of ["mouseover", "load", "error"]) one.dispatchEvent(new Event(type));
        }""")
    time.sleep(0.3)
    expect(page.js("return window.hacked ?? null") is None, "text of the model ran")
    made = page.js("return [...new Set([...document.querySelectorAll('#chat .body *')].map((e) => e.localName))]")
    known = "a blockquote br button code del div em h3 h4 h5 h6 hr li ol p pre span strong table tbody td th thead tr ul"
    expect(set(made) <= set(known.split()), f"elements: {made}")
    attributes = page.js("return [...new Set([...document.querySelectorAll('#chat .body *')].flatMap((e) => e.getAttributeNames()))]")
    known = "class href title target rel scope start tabindex role aria-label type"
    expect(set(attributes) <= set(known.split()), f"attributes: {attributes}")
    links = page.js("return [...document.querySelectorAll('#chat .body a')].map((a) => [a.href, a.rel])")
    expect(links and all(re.match("https?://", href) and rel == "noopener noreferrer" for href, rel in links), f"{links}")
    fetched = page.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    expect(all(name.startswith(page.base + "/") for name in fetched), f"requests: {fetched}")
    expect(not (errors := page.errors()), f"the console reports: {errors}")
    sink = "try { document.createElement('div').innerHTML = '<b>x</b>'; return 'made'; } catch { return 'refused'; }"
    expect(page.js(sink) == "refused", "the policy lets the script make HTML of text")
    page.errors()
    text = page.text("#chat")
    for word in ("<img src=x", "javascript:window.hacked", "<iframe", "</code></pre><script>"):
        expect(word in text, f"{word!r} is not shown as text")


def renders_streams_as_wholes(page):
    page.open()
    script = """
        const [text, seed] = arguments;
        const whole = document.createElement("div"), parts = document.createElement("div"), late = document.createElement("div");
        new Markdown(whole).push(text);
        const markdown = new Markdown(parts), delayed = new Markdown(late);
        let state = seed;
        for (let at = 0; at < text.length; ) {
            state = (state * 1103515245 + 12345) % 2147483648;
            const end = at + 1 + (state >> 8) % 7;
            markdown.push(text.slice(at, end));
            // As if the open block were long: rendered at the end alone.
            if (delayed.rest.length > 40) delayed.rendered = 1e9, delayed.rest = new String(delayed.rest + text.slice(at, end)).valueOf();
            else delayed.push(text.slice(at, end));
            at = end;
        }
        delayed.render();
        markdown.render();
        // Adjacent text nodes are one text.
        for (const one of [whole, parts, late]) one.normalize();
        const same = (a, b) => a.isEqualNode(b) ? "" : a.outerHTML + "\\n!==\\n" + b.outerHTML;
        return same(whole, parts) || same(whole, late)"""
    for seed in range(1, 12):
        for text in (SAMPLE, SAMPLE * 3, *HOSTILE, "- a\n\n-", "a\n\n1", "a\n\n- b\n\n    c\n- d\n\ne"):
            expect(page.js(script, text, seed) == "", "a stream renders otherwise: " + page.js(script, text, seed))
    rendered = page.js("""
        const root = document.createElement("div");
        new Markdown(root).push(arguments[0]);
        return [...root.children].map((e) => e.localName + (e.className ? "." + e.className : ""))""", SAMPLE)
    blocks = ["h3", "p", "ol", "blockquote", "div.table", "div.code", "hr", "p"]
    expect(rendered == blocks, f"blocks: {rendered}")
    inline = page.js("""
        const root = document.createElement("div");
        new Markdown(root).push(arguments[0]);
        return [...root.querySelectorAll("em, strong, del, a, li li li, td.right, th.center, code, h3")]
            .map((e) => e.localName + ": " + e.textContent)""", SAMPLE)
    wanted = ["h3: Tides", "em: rises", "strong: falls", "em: spring tide", "strong: spring tide", "del: lower",
              "code: moon.phase()", "a: the tables", "a: https://example.org/now", "em: sun", "li: deep", "code: code", "strong: more",
              "th: Note", "td: 6.1 m", "code: ok", "td: 16 m", "strong: most",
              "code: def height(hours):\n    return 3.2 * cos(hours / 12.42 * TAU)  # <b>metres</b>"]
    expect(sorted(inline) == sorted(wanted), f"elements: {sorted(set(inline) ^ set(wanted))}")


def takes_linear_time(page):
    """Sixteen times the text takes about sixteen times as long: not 256 times."""
    page.open()
    script = """
        const [text, part, runs] = arguments;
        let best = Infinity;
        let root;
        for (let i = 0; i < runs; i++) {
            root = document.createElement("div");
            const markdown = new Markdown(root);
            const started = performance.now();
            for (let at = 0; at < text.length; at += part) markdown.push(text.slice(at, at + part));
            markdown.render();
            best = Math.min(best, performance.now() - started);
        }
        let depth = 0;
        for (let node = root; node; node = node.querySelector(":scope > *:last-child")) depth++;
        return [best, depth, root.textContent.length + root.querySelectorAll("hr").length]"""
    slow = []
    n = 4_000
    for name, make in PATHOLOGICAL.items():
        for part in (1 << 30, 97):
            first, _, _ = page.js(script, make(n), part, 3)
            for _ in range(3):
                last, depth, length = page.js(script, make(16 * n), part, 1)
                # Below that, the garbage collector and the machine's other work decide.
                if last < 400 or last < 64 * first:
                    break
            else:
                slow.append(f"{name} in parts of {part}: {first:.0f} ms, then {last:.0f} ms")
            expect(depth < 80, f"{name}: nested {depth} deep")
            expect(length, f"{name}: no text")
    expect(not slow, "; ".join(slow))


def goes_by_keyboard(page):
    page.open()
    page.settings(max_tokens=8)
    page.ask("Say one.")
    page.driver.refresh()
    page.connected()
    # From the start of the document.
    page.js("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    page.keys(Keys.TAB)
    expect(page.focused() == "skip", f"first: {page.focused()}")
    visible = page.js("const r = document.activeElement.getBoundingClientRect(); return r.top >= 0 && r.height > 20")
    expect(visible, "the skip link is not to be seen")
    order = []
    for _ in range(20):
        page.keys(Keys.TAB)
        order.append(page.focused())
        if order[-1] == "send":
            break
    wanted = ["model", "new", "theme", "open-settings", "copy", "edit", "copy", "retry", "message", "send"]
    expect(order == wanted, f"order of the focus: {order}")
    # Back again: nothing traps the focus.
    back = []
    for _ in wanted:
        page.tab_back()
        back.append(page.focused())
    expect(back == [*wanted[-2::-1], "skip"], f"order backwards: {back}")
    page.keys(Keys.ENTER)
    expect(page.focused() == "message", f"behind the skip link: {page.focused()}")
    # The focus is to be seen, and not behind a bar.
    for selector in ("#new", "#open-settings", "#send", "#chat .edit"):
        outline = page.js("""
            document.querySelector("#message").focus();
            const one = document.querySelector(arguments[0]);
            one.focus({ focusVisible: true });
            const style = getComputedStyle(one);
            return parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== "none";""", selector)
        expect(outline, f"no outline: {selector}")
    # The settings, by keyboard alone.
    page.js("document.querySelector('#open-settings').focus()")
    page.keys(Keys.ENTER)
    expect(page.focused() == "system", f"in the settings: {page.focused()}")
    page.keys("Be brief.", Keys.TAB, "0.5", Keys.ENTER)
    expect(page.focused() == "open-settings", f"after the settings: {page.focused()}")
    expect(page.js("return [settings.system, settings.temperature]") == ["Be brief.", 0.5], "settings are not taken")
    page.keys(Keys.ENTER)
    page.keys(Keys.ESCAPE)
    expect(page.focused() == "open-settings", f"after Esc: {page.focused()}")
    # A chat and a retry.
    page.js("document.querySelector('#message').focus()")
    page.keys("Say two.", Keys.ENTER)
    page.answered()
    page.tab_back()
    expect(page.focused() == "retry", f"before the message field: {page.focused()}")
    page.keys(Keys.SPACE)
    page.until("running || messages.length === 4", "another answer", seconds=5)
    page.answered()
    expect(len(page.messages()) == 4, f"{page.messages()}")
    page.js("document.querySelector('#new').focus()")
    page.keys(Keys.SPACE)
    page.until("!messages.length", "an empty chat", seconds=5)
    expect(page.focused() == "message", f"after a new chat: {page.focused()}")


def has_two_themes(page):
    back = "getComputedStyle(document.body).backgroundColor"
    page.emulate("light")
    page.open()
    light = page.js(f"return {back}")
    page.emulate("dark")
    dark = page.until(f"{back} !== arguments[0] && {back}", "the system's dark theme", light, seconds=5)
    expect(page.find("#theme").get_attribute("aria-pressed") == "true", "the switch does not follow")
    page.click("#theme")
    expect(page.js(f"return {back}") == light, "the switch does nothing")
    page.driver.refresh()
    page.connected()
    expect(page.js(f"return {back}") == light, "the choice is not kept")
    page.click("#theme")
    page.emulate("light")
    page.until(f"{back} === arguments[0]", "the system's theme again", light, seconds=5)
    page.click("#theme")
    expect(page.js(f"return {back}") == dark, "no dark theme by the switch")
    page.emulate("light", "reduce")
    page.seed(("user", "x"), ("assistant", "y"))
    page.js("document.querySelector('#chat > li:last-child').classList.add('pending')")
    moves = "getComputedStyle(document.querySelector('.pending p'), '::after').animationName"
    expect(page.js(f"return {moves}") == "none", "the cursor blinks")
    page.emulate()
    expect(page.js(f"return {moves}") != "none", "the cursor never blinks")


def looks(page):
    """Screenshots, and what does not fit."""
    wide = "return document.documentElement.scrollWidth > innerWidth"
    chat = [("user", "Explain the tides, with a table and some Python."), ("assistant", SAMPLE)]
    for width, height, device in ((1100, 900, "desktop"), (360, 740, "phone"), (320, 480, "small")):
        for scheme in ("light", "dark"):
            page.size(width, height)
            page.emulate(scheme)
            page.open()
            page.shot(f"{device}-{scheme}-empty")
            expect(not page.js(wide), f"the empty page is wider than {width} pixels")
            page.axe(f"empty, {device}, {scheme}")
            page.seed(*chat)
            page.shot(f"{device}-{scheme}-chat")
            expect(not page.js(wide), f"the chat is wider than {width} pixels")
            page.axe(f"chat, {device}, {scheme}")
            page.js("scrollTo(0, 0)")
            page.shot(f"{device}-{scheme}-chat-top")
            page.js("note('The server cannot be reached. Check that it runs, then retry.', { label: 'Retry', act: retry })")
            page.js("$('message').value = 'A longer message\\nof two lines'")
            page.shot(f"{device}-{scheme}-error")
            page.axe(f"error, {device}, {scheme}")
            page.click("#open-settings")
            page.shot(f"{device}-{scheme}-settings")
            fits = """
                const r = document.querySelector("#settings").getBoundingClientRect();
                return r.left >= 0 && r.right <= innerWidth && r.top >= 0 && r.bottom <= innerHeight"""
            expect(page.js(fits), f"the settings do not fit {width} by {height} pixels")
            page.axe(f"settings, {device}, {scheme}")
            page.keys(Keys.ESCAPE)
    page.size(360, 740)
    small = page.js("""return [...document.querySelectorAll('header button, #composer button, .actions button, .copy, #note button')]
        .filter((e) => e.offsetParent).map((e) => [e.textContent.trim() || e.id, e.getBoundingClientRect()])
        .filter(([, r]) => r.width < 24 || r.height < 24).map(([name]) => name)""")
    expect(not small, f"targets of fewer than 24 pixels: {small}")
    page.emulate()
    page.size(1100, 800)


def names_everything(page):
    """The accessibility tree has landmarks, and a name for each control."""
    page.seed(("user", "x"), ("assistant", SAMPLE))
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n.get("ignored")]
    for role in ("banner", "main", "form"):
        expect(role in [r for r, _ in found], f"no {role}")
    for role, name in (("heading", "Anchorite"), ("list", "Conversation"), ("heading", "You"), ("heading", "Model"),
                       ("textbox", "Message"), ("button", "Send"), ("button", "New chat"), ("button", "Settings"),
                       ("button", "Copy the code"), ("group", "Code, python"), ("group", "Table"), ("combobox", "Model")):
        expect((role, name) in found, f"no {role} {name!r}")
    controls = ("button", "textbox", "combobox", "link", "spinbutton", "group")
    unnamed = [role for role, name in found if role in controls and not name.strip()]
    expect(not unnamed, f"without a name: {unnamed}")


def copies_code(page):
    page.seed(("user", "x"), ("assistant", SAMPLE))
    page.js("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    page.js("document.querySelector('.code .copy').scrollIntoView({ block: 'center' })")
    page.click(".code .copy")
    code = page.until("window.copied", "a copy", seconds=5)
    expect(code.startswith("def height(hours):\n    return"), f"copied: {code!r}")
    page.until("document.getElementById('status').textContent === 'Copied.'", "a word of the copy", seconds=5)
    # Without HTTPS, the browser has no clipboard to write to.
    page.js("""
        navigator.clipboard.writeText = () => Promise.reject();
        document.execCommand = (command) => {
            window.old = [command, document.activeElement.value];
            return true;
        }""")
    page.click(".code .copy")
    expect(page.until("window.old", "a copy", seconds=5) == ["copy", code], "the old way copies something else")


ANY_SERVER = [
    headers, opens, holds_a_chat, stops, resumes, edits_and_retries, new_chat, runs_nothing_of_the_model,
    renders_streams_as_wholes, takes_linear_time, goes_by_keyboard, has_two_themes, names_everything, copies_code, looks,
]


# ---- Tests with the server of this script, which does as it is told ----


def sends_what_is_set(page, fake):
    page.open()
    page.ask("Hello.")
    body = fake.requests[-1]["body"]
    wanted = {"model": "fake-model", "messages": [{"role": "user", "content": "Hello."}], "stream": True,
              "stream_options": {"include_usage": True}, "return_progress": True}
    expect(body == wanted, f"request: {body}")
    page.settings(system="Be kind.", temperature=0.7, top_p=0.9, top_k=20, min_p=0.05, repeat_penalty=1.1, max_tokens=64, seed=42)
    page.js("$('model').value = 'other-model'; $('model').dispatchEvent(new Event('change'))")
    page.ask("Again.")
    wanted |= {"model": "other-model", "temperature": 0.7, "top_p": 0.9, "top_k": 20, "min_p": 0.05,
               "repeat_penalty": 1.1, "max_tokens": 64, "seed": 42}
    wanted["messages"] = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."},
                          {"role": "assistant", "content": page.js("return messages[1].content")}, {"role": "user", "content": "Again."}]
    expect(fake.requests[-1]["body"] == wanted, f"request: {fake.requests[-1]['body']}")
    # What is no number of the range is not taken.
    page.settings(top_p=7)
    expect(page.js("return $('settings').open && document.activeElement.name") == "top_p", "a top_p of 7 is accepted")
    page.keys(Keys.ESCAPE)
    page.ask("Once more.")
    expect(fake.requests[-1]["body"]["top_p"] == 0.9, "a top_p of 7 is sent")
    page.click("#open-settings")
    page.click("#reset")
    page.click("#settings .main")
    page.ask("Plain.")
    expect(not {"temperature", "seed", "top_p"} & set(fake.requests[-1]["body"]), f"{fake.requests[-1]['body']}")


def streams_hostile_text(page, fake):
    page.open()
    page.errors()
    for text in (*HOSTILE, "`" * 10_000, SAMPLE):
        fake.say(text, parts=5 if len(text) < 5000 else 200)
        page.send("Go.")
        page.idle()
        expect(page.js("return window.hacked ?? null") is None, f"ran: {text[:60]!r}")
        expect(page.js("return messages.at(-1).content") == text, "the text arrives changed")
    expect(page.count("#chat img, #chat script, #chat iframe, #chat svg, #chat style") == 0, "elements of the model")
    expect(not (errors := page.errors()), f"the console reports: {errors}")


def stop_ends_the_request(page, fake):
    page.open()
    fake.say("word " * 2000, parts=5, delay=0.02)
    page.send("Go.")
    page.until("messages.length === 2", "text")
    page.keys(Keys.ESCAPE)
    page.idle()
    end = time.monotonic() + 5
    while not fake.requests[-1].get("broken") and time.monotonic() < end:
        time.sleep(0.05)
    expect(fake.requests[-1].get("broken"), "the server still sends")


def shows_progress(page, fake):
    page.open()
    fake.say("Done.", prompt=[(0, 512), (128, 512), (384, 512)], delay=0.4)
    page.send("Read this.")
    page.until("document.querySelector('.wait')?.innerText.includes('128 of 512 tokens')", "the progress", seconds=10)
    expect(page.js("return document.querySelector('progress').value") == 128, "the bar does not move")
    page.shot("progress")
    page.axe("progress")
    page.answered()
    expect(page.count("progress") == 0, "the bar stays")


def asks_for_the_key(page, fake):
    fake.key = "open sesame"
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, fake, "key", None)
        page.driver.get(page.base + "/")
        page.js("sessionStorage.clear(); localStorage.clear()")
        page.driver.get(page.base + "/")
        page.until("document.getElementById('key').open", "the question for the key", seconds=10)
        page.shot("key")
        page.axe("key")
        page.keys("wrong", Keys.ENTER)
        page.until("$('key').open && $('key-why').innerText.includes('did not accept')", "another question", seconds=10)
        page.keys(Keys.ESCAPE)
        page.until("!$('note').hidden && $('note-text').innerText.includes('API key')", "a note", seconds=10)
        page.click("#note-action")
        page.until("document.getElementById('key').open", "the question again", seconds=10)
        page.keys("open sesame", Keys.ENTER)
        page.connected()
        page.ask("Hello.")
        expect(fake.requests[-1]["authorization"] == "Bearer open sesame", "the key is not sent")
        expect(page.js("return JSON.stringify(localStorage)").count("sesame") == 0, "the key is in localStorage")
        page.driver.refresh()
        page.connected()
        # In the middle of a chat.
        fake.key = "another"
        page.send("And now?")
        page.until("document.getElementById('key').open", "the question in a chat", seconds=10)
        page.keys("another", Keys.ENTER)
        page.answered()


def waits_while_the_server_loads(page, fake):
    page.open()
    fake.loading = 2
    page.driver.refresh()
    page.until("$('note-text').innerText.includes('loading')", "a note", seconds=10)
    page.shot("loading")
    page.connected()
    expect(page.js("return $('note').hidden"), "the note stays")
    fake.full = 1
    page.send("Hello.")
    page.until("$('note-text').innerText.includes('busy')", "a note", seconds=10)
    page.answered()
    expect(page.js("return $('note').hidden"), "the note stays")
    # Esc ends the attempts.
    fake.full = 1000
    page.send("Hello again.")
    page.until("$('note-text').innerText.includes('busy')", "a note", seconds=10)
    page.keys(Keys.ESCAPE)
    page.idle()
    fake.full = 0
    expect(page.js("return $('note').hidden"), "the note stays")
    expect(page.messages()[-1] == ("user", "Hello again."), f"{page.messages()}")
    page.click("#chat > li:last-child .retry")
    page.answered()


def explains_errors(page, fake):
    page.open()
    cases = [
        (dict(status=400, error={"message": "too long", "type": "exceed_context_size_error", "n_prompt_tokens": 3000, "n_ctx": 2048}),
         ["3,000 tokens", "2,048 fit", "new chat"]),
        (dict(status=400, error={"message": "tools is not supported", "type": "invalid_request_error"}),
         ["tools is not supported", "retry"]),
        (dict(status=500, error={"message": "it broke", "type": "server_error"}), ["it broke", "Retry"]),
        (dict(status=413, error={}), ["too large"]),
        (dict(status=404, error={}), ["does not know"]),
        (dict(close=True), ["cannot be reached", "Check"]),
    ]
    for failure, words in cases:
        fake.fail(**failure)
        page.send("Hello.")
        page.idle()
        text = page.text("#note-text")
        expect(all(word in text for word in words), f"{failure}: {text!r}")
        expect(page.messages()[-1][0] == "user", f"an empty answer stays: {page.messages()}")
    page.shot("refused")
    # After the first text.
    fake.say("Half an ans", parts=3, error={"code": 500, "message": "the disk burns", "type": "server_error"})
    page.send("Hello.")
    page.idle()
    expect("the disk burns" in page.text("#note-text"), page.text("#note-text"))
    expect(page.messages()[-1] == ("assistant", "Half an ans"), f"{page.messages()}")
    fake.say("Half an ans", parts=3, cut=True)
    page.send("Hello.")
    page.idle()
    expect("connection" in page.text("#note-text"), page.text("#note-text"))
    expect(page.messages()[-1] == ("assistant", "Half an ans"), f"{page.messages()}")
    expect("interrupted" in page.text("#chat > li:last-child .foot"), page.text("#chat > li:last-child .foot"))
    page.click("#note-action")
    page.answered()
    expect(page.js("return $('note').hidden"), "the note stays")
    # Two messages of the user in a row are one for the server.
    roles = [message["role"] for message in fake.requests[-1]["body"]["messages"]]
    expect(all(a != b for a, b in zip(roles, roles[1:])), f"roles: {roles}")
    fake.say("")
    page.send("Say nothing.")
    page.idle()
    expect("without text" in page.messages()[-1][1], f"{page.messages()}")
    before = page.messages()
    page.driver.refresh()
    page.connected()
    expect(page.messages() == before, f"after a reload: {page.messages()}, before: {before}")
    fake.say("cut", finish="length")
    page.ask("Hello.")
    expect("Cut at max tokens" in page.text("#chat > li:last-child .foot"), page.text("#chat > li:last-child .foot"))


def speaks_in_sentences(page, fake):
    page.open()
    page.js("""window.spoken = []; new MutationObserver((all) => {
        for (const m of all) for (const n of m.addedNodes) spoken.push(n.textContent); }).observe($("speech"), { childList: true })""")
    fake.say("The **sea** rises. It falls by 3.14 m! Then:\n```\nx = 1. y = 2\n```\nThe end", parts=1)
    page.ask("Go.")
    page.until("spoken.at(-1) === 'End of the answer.'", "the end in words", seconds=5)
    spoken = [re.sub(r"\s+", " ", text).strip() for text in page.js("return spoken")]
    expect(spoken == ["The sea rises.", "It falls by 3.14 m!", "Then:", "Code block.", "The end", "End of the answer."], f"{spoken}")
    for selector in ("#chat", "#chat > li:last-child .body"):
        live = "return document.querySelector(arguments[0]).closest('[aria-live], [role=log], [role=status]')"
        expect(page.js(live, selector) is None, "each token is read")


def follows_the_text(page, fake):
    page.open()
    fake.say("\n\n".join(f"Paragraph {i} of many." for i in range(60)), parts=11, delay=0.01)
    page.send("Go.")
    page.until("messages.length === 2 && scrollY > 50", "the page to scroll")
    page.js("scrollTo(0, 0)")
    page.until("!$('latest').hidden", "the way to the latest text", seconds=10)
    expect(page.js("return scrollY") < 50, "the page scrolls away from the reader")
    page.click("#latest")
    page.until("isNearEnd()", "the end", seconds=5)
    page.idle()
    expect(page.js("return isNearEnd()"), "the end is out of sight")


def survives_a_browser_that_keeps_nothing(page, fake):
    page.open()
    page.js("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') }")
    page.ask("Hello.")
    expect("does not keep" in page.text("#note-text"), page.text("#note-text"))
    page.open()
    page.js("""addEventListener("pagehide", () => {
        localStorage.setItem("anchorite.chat", "{]");
        localStorage.setItem("anchorite.settings", "7");
    })""")
    page.driver.refresh()
    page.connected()
    page.ask("Hello.")
    expect(len(page.messages()) == 2, f"{page.messages()}")


FAKE_SERVER = [
    sends_what_is_set, streams_hostile_text, stop_ends_the_request, shows_progress, asks_for_the_key, waits_while_the_server_loads,
    explains_errors, speaks_in_sentences, follows_the_text, survives_a_browser_that_keeps_nothing,
]

AXE = None


def main():
    global AXE
    is_fake = sys.argv[1] == "--fake"
    out = pathlib.Path(sys.argv[2] if len(sys.argv) == 3 else ROOT / "target/page")
    out.mkdir(parents=True, exist_ok=True)
    AXE = axe_source()
    only = os.environ.get("ONLY", "").split()
    fake = page_fake.start() if is_fake else None
    page = Page(fake.base if is_fake else sys.argv[1], out)
    passed = failed = 0
    try:
        tests = [(test, (page,)) for test in ANY_SERVER]
        if is_fake:
            tests += [(test, (page, fake)) for test in FAKE_SERVER]
        for test, arguments in tests:
            name = test.__name__.replace("_", " ")
            if only and test.__name__ not in only:
                continue
            started = time.monotonic()
            try:
                if is_fake:
                    fake.reset()
                test(*arguments)
            except Exception as error:  # noqa: BLE001 (a test that fails in any way has failed)
                failed += 1
                print(f"FAILED  {name}: {error}")
                if not isinstance(error, Failed):
                    traceback.print_exc()
                page.shot(f"failed-{test.__name__}")
            else:
                passed += 1
                print(f"ok      {name} ({time.monotonic() - started:.1f} s)", flush=True)
    finally:
        page.driver.quit()
        if fake:
            fake.stop()
    print(f"page: {passed} passed, {failed} failed, 0 skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
