"""Keys planted in the environment and in files are in nothing that a command prints or writes, whatever goes wrong."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
KEYS = {
    "KAGGLE_KEY": "planted-kaggle-0123456789abcdef",
    "KAGGLE_API_TOKEN": "planted-kagat-0123456789abcdef",
    "HF_TOKEN": "hf_plantedAbCdEfGhIjKlMnOpQrStUvWxYz",
    "WANDB_API_KEY": "planted-wandb-0123456789abcdef0123456789abcdef",
    "OPENAI_API_KEY": "sk-planted-0123456789abcdef",
}


class Hub(BaseHTTPRequestHandler):
    """A hub that refuses, and says back what it was sent."""

    def do_GET(self):
        said = f"invalid token {self.headers.get('Authorization')}"
        self.server.seen.append(said)
        self.send_response(401)
        self.send_header("X-Error-Message", said)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(said.encode())

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def hub():
    server = HTTPServer(("127.0.0.1", 0), Hub)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def planted_in(texts):
    return sorted({name for name, key in KEYS.items() for text in texts if key in text})


def test_no_key_in_what_the_commands_print_and_write(paths, words, run_command, monkeypatch):
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    monkeypatch.setenv("FOLDBLEND_TRACEBACK", "")
    shown = [text for run in (["make_folds"], ["train", "--run", words], ["blend"]) for text in run_command(*run)[1:]]
    shown += run_command("train", "--run", "nosuch")[1:] + run_command("blend", "--strategy", "nosuch")[1:]
    written = [path.read_bytes().decode("utf-8", "replace") for path in paths.root.rglob("*") if path.is_file()]
    assert len(written) > 10 and planted_in(shown + written) == []


DOWNLOAD = """
import os, sys
sys.path.insert(0, "src")
from foldblend.commands import guard, train
words = ["--competition", "toy", "--run", "tiny", "--model.name", "some/model"]
for os.environ["FOLDBLEND_TRACEBACK"] in ("", "1"):
    print("status", guard(lambda: train.main(words)), flush=True)
    print("next", file=sys.stderr, flush=True)
"""


def test_no_key_in_the_words_of_a_download_that_fails(paths, toy_competition, hub, tmp_path):
    """With and without a traceback, in a process of its own: the hub's address is read when its client is imported."""
    env = {**os.environ, **KEYS, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    env["HF_ENDPOINT"] = f"http://127.0.0.1:{hub.server_port}"
    command = [sys.executable, "-c", DOWNLOAD]
    done = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    message, traceback, _ = done.stderr.split("next\n")
    assert done.stdout.count("status 2\n") == 2 and "Traceback" in traceback and "Traceback" not in message
    assert "the hub did not give it" in message and "the hub did not give it" in traceback
    assert any(KEYS["HF_TOKEN"] in said for said in hub.seen), "the hub was not asked with the key"
    written = [path.read_bytes().decode("utf-8", "replace") for path in paths.root.rglob("*") if path.is_file()]
    assert planted_in([done.stdout, done.stderr, *written]) == []
