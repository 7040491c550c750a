"""A server that speaks as much of llama-server's API as the chat page uses, for `ci/page.py`.

It streams, stalls, fails and loads as a test asks for. Its page is put together as page/mod.rs does it.
"""

import base64
import hashlib
import http.server
import json
import pathlib
import re
import socket
import sys
import threading
import time

PAGE = pathlib.Path(__file__).resolve().parent.parent / "kernel/src/app/server/page"


def the_page():
    """The page's bytes and its policy, from the parts that mod.rs lists."""
    source = (PAGE / "mod.rs").read_text()
    parts = re.search(r"const PAGE: &str = concat!\((.*?)\n\);", source, re.S)[1]
    text = ""
    for file, literal in re.findall(r'include_str!\("([^"]+)"\)|"([^"]*)"', parts):
        text += (PAGE / file).read_text() if file else literal.replace("\\n", "\n")
    policy = re.search(r'format!\(\s*"(default-src.*?)",\n', source, re.S)[1]
    policy = re.sub(r"\\\n\s*", "", policy)
    for tag in ("script", "style"):
        raw = re.search(f"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        policy = policy.replace("{}", base64.b64encode(hashlib.sha256(raw.encode()).digest()).decode(), 1)
    return text.encode(), policy


class Fake:
    """The server's state: what it answers next."""

    def __init__(self):
        self.requests = []
        self.body, self.policy = the_page()
        self.etag = '"' + hashlib.sha256(self.body).hexdigest()[:16] + '"'
        self.reset()

    def reset(self):
        self.key = None
        # How many requests are refused: as the model loads, as the queue is full.
        self.loading = 0
        self.full = 0
        self.next = None

    def say(self, text, **how):
        """The next answer: `parts` characters an event, `delay` seconds between, `prompt` progress, `error`, `cut`, `finish`."""
        self.next = {"text": text, **how}

    def fail(self, status=0, error=None, close=False):
        """The next answer is an error, or none at all."""
        self.next = {"status": status, "error": error, "close": close}

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake = None

    def log_message(self, *_):
        pass

    def answer(self, status, body, headers=()):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers or [("Content-Type", "application/json; charset=utf-8")]:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, message, kind, headers=(), **more):
        body = {"error": {"code": status, "message": message, "type": kind, **more}}
        self.answer(status, body, [("Content-Type", "application/json; charset=utf-8"), *headers])

    def is_refused(self):
        """Refuses a request without the key, or while the server loads."""
        fake = self.fake
        if fake.key and self.headers.get("Authorization") != f"Bearer {fake.key}":
            self.refuse(401, "Invalid API Key", "authentication_error")
        elif fake.loading > 0:
            fake.loading -= 1
            self.refuse(503, "Loading model", "unavailable_error")
        else:
            return False
        return True

    def do_GET(self):
        fake = self.fake
        if self.path in ("/", "/index.html"):
            headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", fake.policy), ("ETag", fake.etag),
                       ("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")]
            if self.headers.get("If-None-Match") == fake.etag:
                self.send_response(304)
                self.send_header("ETag", fake.etag)
                self.end_headers()
            else:
                self.answer(200, fake.body, headers)
        elif self.is_refused():
            pass
        elif self.path == "/v1/models":
            models = [{"id": name, "object": "model"} for name in ("fake-model", "other-model")]
            self.answer(200, {"object": "list", "data": models})
        elif self.path == "/props":
            params = {"temperature": 0.0, "top_p": 0.949999988079071, "top_k": 40, "min_p": 0.05000000074505806, "repeat_penalty": 1.0,
                      "n_predict": -1, "seed": 4294967295}
            self.answer(200, {"default_generation_settings": {"n_ctx": 4096, "params": params}, "total_slots": 2})
        else:
            self.refuse(404, "File Not Found", "not_found_error")

    def do_POST(self):
        fake = self.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.is_refused():
            return
        if fake.full > 0:
            fake.full -= 1
            self.refuse(503, "All slots are busy", "unavailable_error", [("Retry-After", "1")])
            return
        seen = {"body": body, "authorization": self.headers.get("Authorization")}
        fake.requests.append(seen)
        how, fake.next = fake.next or self.usual(body), None
        if how.get("close"):
            # The browser tries a second time, by a new connection.
            fake.next = how
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif how.get("status"):
            error = {"message": "", "type": "", **how["error"]}
            self.refuse(how["status"], error.pop("message"), error.pop("type"), **error)
        else:
            try:
                self.stream(body, **how)
            except OSError:
                seen["broken"] = True
                self.close_connection = True

    @staticmethod
    def usual(body):
        """An answer of as many words as may be, slow for a prompt that says so."""
        asked = body["messages"][-1]["content"]
        words = min(body.get("max_tokens", 40), 2000)
        return {"text": " ".join(f"{word}." if i % 9 == 8 else word for i, word in zip(range(words), ["the", "tide", "turns"] * 700)),
                "parts": 5, "delay": 0.02 if "slow" in asked else 0}

    def part(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def stream(self, body, text, parts=4, delay=0, prompt=(), error=None, cut=False, finish="stop"):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"], "system_fingerprint": "fake"}

        def send(event):
            data = f"data: {event if isinstance(event, str) else json.dumps({**common, **event}, ensure_ascii=False)}\n\n".encode()
            # Parts of a stream end anywhere, within a character too.
            middle = next((i + 1 for i, byte in enumerate(data) if byte >= 0xC0), len(data) // 2)
            self.part(data[:middle])
            if middle != len(data) // 2:
                time.sleep(0.05)
            self.part(data[middle:])

        def chunk(delta, reason=None, **more):
            send({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more})

        for done, total in prompt:
            chunk({}, prompt_progress={"total": total, "cache": 0, "processed": done, "time_ms": 1})
            time.sleep(delay)
        self.part(b":\n\n")
        chunk({"role": "assistant", "content": None})
        n = 0
        for at in range(0, len(text), parts):
            chunk({"content": text[at : at + parts]})
            n += 1
            time.sleep(delay)
        if error:
            send(json.dumps({"error": error}))
        if error or cut:
            self.part(b"")
            return
        prompt_tokens = sum(len(message["content"].split()) for message in body["messages"]) + 4
        cached = prompt_tokens // 2 if len(body["messages"]) > 1 else 0
        timings = {"cache_n": cached, "prompt_n": prompt_tokens - cached, "prompt_per_second": 45.5,
                   "predicted_n": n, "predicted_per_second": 12.25}
        chunk({}, finish, timings=timings)
        usage = {"completion_tokens": n, "prompt_tokens": prompt_tokens, "total_tokens": n + prompt_tokens,
                 "prompt_tokens_details": {"cached_tokens": cached}}
        send({"choices": [], "usage": usage, "timings": timings})
        send("[DONE]")
        self.part(b"")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """A browser closes connections as it likes; any other error is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def start():
    """Starts the server on a port that is free."""
    fake = Fake()
    handler = type("Handler", (Handler,), {"fake": fake})
    fake.server = Server(("127.0.0.1", 0), handler)
    fake.base = f"http://127.0.0.1:{fake.server.server_port}"
    threading.Thread(target=fake.server.serve_forever, daemon=True).start()
    return fake
