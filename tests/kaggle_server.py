"""A Kaggle of our own on the loopback: it speaks the protocol of the real client and scores what it is sent."""

import csv
import io
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "planted-0123456789abcdef"
SLUG = "emo-2024"


class Kaggle:
    """The state behind the server. `truth`: id -> 0/1 a label; the first half of the rows is the public part."""

    def __init__(self, truth):
        self.truth = truth
        self.submissions, self.uploads, self.asked, self.archive = [], {}, [], b""
        self.faults = {}
        """Method -> what its next calls meet: "cut", "cut after", "hold", "html", ("slow", s), (status, message)."""
        self.gate = threading.Event()
        """Calls that are held go on when it is set."""
        self.sent_to = f"http://localhost/files/{SLUG}.zip?signature=1"
        """Where a download is sent on to."""
        self.polls_until_scored = 1
        self.daily = 5
        self.authorizations = set()

    def fault(self, method, *faults):
        self.faults[method] = list(faults)

    def add(self, file_name, content, description, date=None):
        """A submission as it comes to be, by whatever way."""
        one = {
            "ref": 1000 + len(self.submissions), "fileName": file_name, "description": description,
            "date": date or f"2026-01-01T00:00:{len(self.submissions):02d}.000Z", "status": "PENDING",
            "totalBytes": len(content), "submittedBy": "u", "teamName": "u", "url": "",
        }  # fmt: skip
        self.submissions.append({**one, "content": content, "polls": 0})
        return one["ref"]

    def look_at(self, one):
        """What Kaggle shows of a submission, which is scored after a while."""
        one["polls"] += 1
        if one["status"] == "PENDING" and one["polls"] > self.polls_until_scored:
            try:
                public, private = self.score(one["content"])
                one |= {"status": "COMPLETE", "publicScore": f"{public:.5f}", "privateScore": ""}
            except (ValueError, KeyError) as error:
                one |= {"status": "ERROR", "errorDescription": f"Evaluation Exception: {error}"}
        return {name: value for name, value in one.items() if name not in ("content", "polls")}

    def score(self, content):
        """Macro-F1 on the public and the private rows."""
        rows = list(csv.reader(io.StringIO(content.decode())))[1:]
        if sorted(row[0] for row in rows) != sorted(self.truth):
            raise ValueError("the ids are not the test rows'")
        answers = {row[0]: [int(cell) for cell in row[1:]] for row in rows}
        ids = sorted(self.truth)
        half = len(ids) // 2
        return self._macro_f1(answers, ids[:half]), self._macro_f1(answers, ids[half:])

    def _macro_f1(self, answers, ids):
        scores = []
        for k in range(len(next(iter(self.truth.values())))):
            both = sum(answers[i][k] * self.truth[i][k] for i in ids)
            either = sum(answers[i][k] + self.truth[i][k] for i in ids)
            scores.append(2 * both / either if either else 0.0)
        return sum(scores) / len(scores)

    def answer(self, method, body):
        """The reply to one call of the API."""
        if method == "IntrospectToken":
            return {"active": body["token"] == KEY, "username": "u"}
        if method != "GetSubmission" and body["competitionName"] != SLUG:
            raise Refusal(403, "Permission 'competitions.participate' was denied")
        return getattr(self, f"on_{method}")(body)

    def on_StartSubmissionUpload(self, body):
        token = f"token{len(self.uploads)}"
        self.uploads[token] = {"name": body["fileName"], "length": body["contentLength"]}
        return {"token": token, "createUrl": f"http://localhost/upload/{token}"}

    def on_CreateSubmission(self, body):
        if self.left() <= 0:
            raise Refusal(400, "Your team has used its submission allowance (5 of 5)")
        upload = self.uploads[body["blobFileTokens"]]
        assert len(upload["content"]) == upload["length"]
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        ref = self.add(upload["name"], upload["content"], body.get("submissionDescription", ""), now)
        return {"message": "Successfully submitted to Emo", "ref": ref}

    def on_GetSubmissionLimits(self, body):
        n = len(self.submissions)
        return {"numToday": n, "numTotal": n, "numAllowedNow": self.left(), "limitedByTotal": False}

    def left(self):
        return self.daily - len(self.submissions)

    def on_ListSubmissions(self, body):
        size, page = min(body.get("pageSize", 20), 20), body.get("page", 1)
        newest_first = self.submissions[::-1]
        return {"submissions": [self.look_at(one) for one in newest_first[size * (page - 1) : size * page]]}

    def on_GetSubmission(self, body):
        return self.look_at(next(one for one in self.submissions if one["ref"] == body["ref"]))


class Refusal(Exception):
    """An error that the API answers with."""


class Handler(BaseHTTPRequestHandler):
    """Calls arrive in absolute form, as at a proxy."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        kaggle, method = self.server.kaggle, self.path.rsplit("/", 1)[-1]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        kaggle.asked.append(method)
        kaggle.authorizations.add(self.headers["Authorization"])
        assert self.path.startswith("http://localhost/api/v1/")
        fault = self.next_fault(method)
        if fault == "cut":
            return self.cut()
        if fault == "html":
            return self.reply(200, b"<html>log in</html>", "text/html")
        if fault == "hold":
            kaggle.gate.wait(60)
        if fault and isinstance(fault[0], int):
            return self.reply(fault[0], json.dumps({"code": fault[0], "message": fault[1]}).encode())
        if fault and fault[0] == "slow":
            time.sleep(fault[1])
        if method == "DownloadDataFiles" and body["competitionName"] == SLUG:
            return self.reply(302, b"", headers={"Location": kaggle.sent_to})
        try:
            answer = kaggle.answer(method, body)
        except Refusal as refusal:
            status, message = refusal.args
            return self.reply(status, json.dumps({"code": status, "message": message}).encode())
        if fault == "cut after":
            return self.cut()
        return self.reply(200, json.dumps(answer).encode())

    def do_PUT(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.kaggle.asked.append("PUT")
        fault = self.next_fault("PUT")
        if fault == "cut":
            return self.cut()
        if fault and fault[0] == "slow":
            time.sleep(fault[1])
        elif fault:
            return self.reply(fault[0], fault[1].encode(), "text/plain")
        self.server.kaggle.uploads[self.path.rsplit("/", 1)[-1]]["content"] = content
        return self.reply(200, b"")

    def do_GET(self):
        archive, fault = self.server.kaggle.archive, self.next_fault("GET")
        if fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(archive)))
            self.end_headers()
            self.wfile.write(archive[: len(archive) // 2])
            return self.cut()
        return self.reply(200, archive, "application/zip")

    def next_fault(self, method):
        waiting = self.server.kaggle.faults.get(method)
        return waiting.pop(0) if waiting else None

    def cut(self):
        self.close_connection = True
        self.connection.close()

    def reply(self, status, data, kind="application/json", headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextmanager
def serving(truth, monkeypatch, home):
    """Run the server and point the client of this process and those below it at it; no other credentials are seen."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *args: None  # cut connections are meant
    server.kaggle = Kaggle(truth)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    settings = {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": f"http://127.0.0.1:{server.server_port}",
        "KAGGLE_USERNAME": "u", "KAGGLE_KEY": KEY, "HOME": str(home),
    }  # fmt: skip
    unset = (
        "NO_PROXY",
        "no_proxy",
        "HTTP_PROXY",
        "KAGGLE_API_TOKEN",
        "KAGGLE_CONFIG_DIR",
        "XDG_CONFIG_HOME",
        "VERBOSE",
    )
    for name in unset:
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    yield server.kaggle
    server.shutdown()
    server.server_close()
