"""A loopback server that speaks OpenAI's API, answers by the words of a text, and misbehaves as it is told."""

import json
import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOODS = {"joy": ("happy", "glad"), "fear": ("afraid", "scared"), "anger": ("furious", "mad")}


def labels_in(text):
    """The labels whose words are in a text."""
    return [mood for mood, words in MOODS.items() if any(word in text.split() for word in words)]


class TeacherServer(ThreadingHTTPServer):
    """`plan` names what happens to a request: (number of the request from 0, its body) -> a key of BEHAVIOURS."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, plan=None, answer=None, delay=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan = plan or (lambda number, body: "answer")
        self.answer = answer or (lambda body: json.dumps({"labels": labels_in(last_text(body))}))
        self.delay, self.lock = delay, threading.Lock()
        self.n_requests, self.bodies, self.headers = 0, [], []
        self.answered = Counter()
        """Texts that were answered whole, by how often."""
        self.times = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request, client_address):
        """A client that was killed is no error of ours."""


def last_text(body):
    return body["messages"][-1]["content"]


@contextmanager
def serving(**options):
    server = TeacherServer(**options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            number = server.n_requests
            server.n_requests += 1
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.times.append(time.monotonic())
        time.sleep(server.delay * random.random())
        getattr(self, f"do_{server.plan(number, body)}")(body)

    # ---------- behaviours

    def do_answer(self, body, content=None, finish="stop", **more):
        content = self.server.answer(body) if content is None else content
        message = {"role": "assistant", "content": content, **more}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        choice = {"index": 0, "finish_reason": finish, "message": message}
        value = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        self.send(200, json.dumps({**value, "usage": usage}))
        with self.server.lock:
            self.server.answered[last_text(body)] += 1

    def do_refuse(self, body):
        self.do_answer(body, "", refusal="I cannot help with that.")

    def do_filter(self, body):
        self.do_answer(body, "", finish="content_filter")

    def do_length(self, body):
        self.do_answer(body, '{"labels": ["jo', finish="length")

    def do_prose(self, body):
        self.do_answer(body, "This text sounds joyful to me, and maybe a little afraid as well.")

    def do_foreign(self, body):
        self.do_answer(body, '{"labels": ["euphoria", "joy"]}')

    def do_only_foreign(self, body):
        self.do_answer(body, '{"labels": ["euphoria"]}')

    def do_plain_list(self, body):
        self.do_answer(body, ", ".join(labels_in(last_text(body))))

    def do_busy(self, body):
        self.send(429, json.dumps({"error": {"message": "slow down"}}), {"retry-after": "0.3"})

    def do_fail(self, body):
        self.send(500, json.dumps({"error": {"message": "oh no"}}))

    def do_no_schema(self, body):
        if "response_format" not in body:
            return self.do_plain_list(body)
        return self.send(400, json.dumps({"error": {"message": "response_format is not supported"}}))

    def do_newer_limit(self, body):
        if "max_tokens" in body:
            return self.send(400, json.dumps({"error": {"message": "use 'max_completion_tokens' instead"}}))
        return self.do_answer(body)

    def do_reject(self, body):
        self.send(400, json.dumps({"error": {"message": "the text is too long for this model"}}))

    def do_wrong_key(self, body):
        self.send(401, json.dumps({"error": {"message": f"wrong key {self.headers.get('authorization', '')}"}}))

    def do_no_json(self, body):
        self.send(200, "{ this is no json", {})

    def do_no_choices(self, body):
        self.send(200, json.dumps({"id": "x", "choices": []}))

    def do_cut(self, body):
        """The connection breaks in the middle of the answer."""
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "500")
        self.end_headers()
        self.wfile.write(b'{"choices": [')
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()

    def do_slow(self, body):
        time.sleep(1.0)
        self.do_answer(body)

    def send(self, status, text, headers=None):
        data = text.encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
