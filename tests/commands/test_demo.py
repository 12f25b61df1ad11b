"""The demo: a blend's models kept in memory answer as the command does, and the page in a real browser."""

import csv
import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from trained_blend import blend_once

from foldblend.commands import demo, predict
from foldblend.errors import UserError
from foldblend.learners.training.weights import WEIGHTS
from foldblend.ledger.records import read_record
from foldblend.ledger.runs import BLEND
from foldblend.reports.demo import Reading, reading_html
from foldblend.settings.loading import open_job

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
HOSTILE = "<script>1</script> happy <img src=x> =1"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def blended(paths, toy_competition, tiny_bert, kept):
    return blend_once(paths, kept, ("words", "frozen", "tiny"), bert=tiny_bert)


@pytest.fixture
def loaded(blended, monkeypatch):
    """The demo of the toy blend."""
    monkeypatch.setattr("foldblend.reports.demo.check_gradio", lambda: None)
    job = open_job("predict.py", ["--competition", "toy", "--serve"], predict.add_flags)
    record = read_record(blended, BLEND)
    recipe, runs = predict.load_recipe(job, record)
    return demo.Demo(job, recipe, runs, partial(predict.answer_rows, job, record, recipe, runs))


def test_models_in_memory_answer_as_the_command_does(paths, blended, loaded, tmp_path):
    test = paths.data("toy") / "test.csv"
    predict.main(["--competition", "toy", "--input", str(test), "--output", str(tmp_path / "command.csv")])
    said, made = loaded.read_file(str(test))
    assert "21 rows" in said and Path(made).read_bytes() == (tmp_path / "command.csv").read_bytes()
    again = loaded.explain(["happy"])
    for run in loaded.runs:  # from now on no weights are read
        for folder in run.checkpoints:
            (folder / WEIGHTS).unlink()
    one = loaded.explain(["happy"])
    assert np.array_equal(one.probs, again.probs)
    longer = loaded.explain([" the furious " * 12])
    assert "".join(longer.pieces) == " the furious " * 12 and len(longer.pieces) == 24


def test_a_long_text_is_explained_by_pieces_of_several_words():
    text = "\n the furious " * 400
    pieces = demo.split_pieces(text)
    assert "".join(pieces) == text and 50 < len(pieces) <= demo.MOST_PIECES
    assert demo.split_pieces(" \n ") == [" \n "]


def test_the_word_that_says_the_label_spoke_for_it(loaded):
    found = loaded.explain(["today it was happy and plain"])
    assert found.label_names[0] == "joy" and "".join(found.pieces) == "today it was happy and plain"
    assert found.pieces[int(found.effects[:, 0].argmax())] == "happy "
    assert found.effects[:, 0].max() > 0.5 and found.thresholds.shape == found.probs.shape == (3,)


@pytest.mark.parametrize("text", ["", "  \n ", None, "x" * 20_001, "happy " * 90])
def test_a_text_that_cannot_be_read_is_a_sentence(loaded, text):
    said = loaded.read_texts(text)
    assert 'class="fb-error"' in said and ("There is no text" in said or "20,001 characters" in said or "64" in said)


@pytest.mark.parametrize(
    "content, said",
    [("id,words\n1,hello\n", "text"), ("", "empty"), ("id,text\n1,a\n1,b\n", "1"), (None, "There is no file")],
)
def test_a_file_that_cannot_be_read_is_a_sentence(loaded, tmp_path, content, said):
    path = tmp_path / "secret-folder" / "new.csv"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    html, made = loaded.read_file(None if content is None else str(path))
    assert made is None and 'class="fb-error"' in html and said in html and "secret-folder" not in html


def test_hostile_texts_and_labels_are_text():
    found = Reading(
        ["<b>joy</b>"], np.float32([0.9]), np.float32([0.4]), np.array([True]), ["<script> ", "x"],
        np.array([[1.0], [0.0]]),
    )  # fmt: skip
    html = reading_html(found)
    assert "<script" not in html and "<b>joy" not in html and "&lt;script&gt;" in html and "threshold 0.400" in html


def test_what_serve_needs_is_said(blended, capsys, monkeypatch):
    with pytest.raises(UserError, match=r"--serve and --text do not go together"):
        predict.main(["--competition", "toy", "--serve", "--text", "a"])
    monkeypatch.setattr("foldblend.reports.demo.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gradio"):
        predict.main(["--competition", "toy", "--serve"])


def test_a_port_that_is_taken_is_a_sentence(loaded):
    pytest.importorskip("gradio", reason="needs gradio: pip install gradio")
    with socket.socket() as taken:
        taken.bind((demo.LOOPBACK, 0))
        taken.listen()
        with pytest.raises(UserError, match=f"--port {taken.getsockname()[1]} cannot be used"):
            demo.serve(demo.make_page(loaded.job, "blend", loaded), demo.LOOPBACK, taken.getsockname()[1])


# ---------- In a browser


@pytest.fixture
def address(loaded):
    """The page, served by a thread of its own."""
    pytest.importorskip("gradio", reason="needs gradio: pip install gradio")
    import uvicorn

    from foldblend.reports.demo import build_app

    app = build_app(demo.make_page(loaded.job, "blend-1", loaded), [demo.LOOPBACK])
    listener = socket.socket()
    listener.bind((demo.LOOPBACK, 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://{demo.LOOPBACK}:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)
    listener.close()


@pytest.fixture
def browser(address, tmp_path):
    """Chromium with the page open."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    from selenium.webdriver.chrome.service import Service

    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    driver.get(address)
    yield driver
    driver.quit()


def until(condition, seconds=60):
    """What the condition returns once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except Exception:  # the page builds itself
            pass
        time.sleep(0.1)
    raise AssertionError("the page did not come that far")


def test_the_page_answers_texts_and_files_and_asks_nobody_else(browser, address, paths, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def element(selector):
        return browser.find_element(By.CSS_SELECTOR, selector)

    box = until(lambda: element("#text0 textarea"))
    box.send_keys(HOSTILE)
    element("#ask").click()
    until(lambda: "threshold" in element("#answer").text)
    answer = element("#answer")
    assert "joy" in answer.text and "<script>" in answer.text and browser.title.startswith("toy")
    assert not answer.find_elements(By.CSS_SELECTOR, "script, img")
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.BACKSPACE)
    element("#ask").click()
    until(lambda: "There is no text" in element("#answer").text)
    next(tab for tab in browser.find_elements(By.CSS_SELECTOR, "button[role=tab]") if tab.text == "A file").click()
    until(lambda: element("#file input[type=file]")).send_keys(str(paths.data("toy") / "test.csv"))
    until(lambda: "test" in element("#file").text)
    time.sleep(0.5)
    element("#read").click()
    until(lambda: "21 rows" in element("#said").text)
    until(lambda: element("#saved").is_displayed())
    element("#saved").click()
    saved = until(lambda: next(tmp_path.glob("*predictions.csv"), None))
    until(lambda: saved.stat().st_size)
    with open(saved, newline="") as file:
        assert len(list(csv.DictReader(file))) == 21
    logged = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in logged if m["method"] == "Network.requestWillBeSent"]
    outside = [url for url in asked if not url.startswith((address, "data:", "blob:", "chrome"))]
    assert len(asked) > 5 and not outside
    errors = [line["message"] for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not errors


def test_another_name_of_the_machine_is_refused(address):
    asked = urllib.request.Request(address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(asked)
