"""teach.py with a language model behind a loopback server: labels, examples, prices, texts, refusals of flags."""

import json

import numpy as np
import pytest
from teacher_server import MOODS, labels_in, last_text, serving

from foldblend.commands import guard, teach
from foldblend.data.tables import load_tables
from foldblend.data.taught import read_taught
from foldblend.ledger.folds import load_folds, write_folds
from foldblend.settings.loading import load_competition

pytest.importorskip("openai", reason="the package openai is not installed")
WORDS = [word for words in MOODS.values() for word in words]
N_ROWS = 24


@pytest.fixture
def moods(paths):
    """Competition `moods`, whose texts say their labels, with three folds; row 0 says joy and is labelled fear."""
    data = paths.data("moods")
    data.mkdir(parents=True)
    texts = [f"row {number} was {WORDS[number % 6]} today" for number in range(N_ROWS)]
    rows = [[int(mood in labels_in(text)) for mood in MOODS] for text in texts]
    rows[0] = [0, 1, 0]
    lines = [f"r{number},{text},{','.join(map(str, row))}" for number, (text, row) in enumerate(zip(texts, rows))]
    (data / "train.csv").write_text("\n".join(["id,text,joy,fear,anger", *lines, ""]))
    (data / "test.csv").write_text("id,text\n" + "".join(f"t{n},now {word}\n" for n, word in enumerate(WORDS)))
    (data / "sample_submission.csv").write_text("id,joy,fear,anger\n" + "".join(f"t{n},0,0,0\n" for n in range(6)))
    (paths.configs / "competitions" / "moods.yaml").write_text(
        "id_column: id\nn_folds: 3\nnear_duplicates: 1.0\nlabels: {definitions: {joy: the writer is happy}}\n"
    )
    competition = load_competition(paths, "moods")
    tables = load_tables(competition, data)
    write_folds(paths, "moods", competition, tables, np.arange(N_ROWS) % 3, np.arange(N_ROWS))
    return data


def write_teacher(paths, url, **more):
    settings = {"model": "m", "base_url": url, "key_variable": '""', "retry_seconds": 0.01, **more}
    (paths.configs / "teachers" / "t.yaml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))


def run(*more):
    teach.main(["--competition", "moods", "--teacher", "t", *map(str, more)])


def refused(capsys, *more):
    assert guard(lambda: teach.main(["--competition", "moods", *map(str, more)])) == 2
    return " ".join(capsys.readouterr().err.split())


def read(paths, name):
    competition = load_competition(paths, "moods")
    tables = load_tables(competition, paths.data("moods"))
    folds = load_folds(paths, "moods", tables, competition)
    return read_taught(paths.data("moods") / f"{name}.npz", "moods", tables.label_names, folds.sha256, 3), folds


def test_training_rows_are_labelled_and_compared_with_the_truth(paths, moods, capsys):
    with serving() as server:
        write_teacher(paths, server.url, input_price=1.0, output_price=2.0)
        run("--rows", "train")
        shown = capsys.readouterr().out
        run("--rows", "train")
    rows, _ = read(paths, "t-train")
    assert set(server.answered.values()) == {1}  # the second start asked nothing
    assert rows.n_sets == 1 and rows.probs.shape == (1, N_ROWS, 3) and rows.folds_sha256 == ""
    assert rows.probs[0, 0].tolist() == [1, 0, 0] and rows.probs[0, 2].tolist() == [0, 1, 0]
    assert "without a definition in labels.definitions: fear, anger" in shown
    assert "24 requests, about" in shown and "2,400 tokens sent, 240 received, $0.0029" in shown
    assert "Agreement with true labels, 24 training rows: macro-F1 0.9" in shown
    assert "fear      0.3750          0.3333  0.9412  0.909" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert rows.made_by["teacher"] == "m" and "key" not in json.dumps(rows.made_by)


def test_with_examples_each_fold_has_a_set_that_saw_none_of_its_rows(paths, moods, capsys):
    with serving() as server:
        write_teacher(paths, server.url, examples=4)
        run("--rows", "test")
    rows, folds = read(paths, "t-test")
    assert rows.n_sets == 3 and rows.folds_sha256 == folds.sha256 and len(server.bodies) == 18
    texts = load_tables(load_competition(paths, "moods"), moods).train_texts
    sets = {}
    for body in server.bodies:
        shown = [message["content"] for message in body["messages"][1:-1]]
        examples = tuple(shown[::2])
        sets.setdefault(examples, []).append(last_text(body))
        assert len(examples) == 4 and all(json.loads(answer)["labels"] for answer in shown[1::2])
    assert len(sets) == 3 and {len(asked) for asked in sets.values()} == {6}
    seen = [{int(folds.fold[texts.index(text)]) for text in examples} for examples in sets]
    assert all(len(folds_seen) < 3 for folds_seen in seen)  # each set leaves one fold out
    assert set.intersection(*({0, 1, 2} - each for each in seen)) == set()


def test_votes_become_soft_labels_and_the_surest_are_kept(paths, moods):
    def answer(body):
        return json.dumps({"labels": [["joy", "fear"][answer.count % 2]]})

    answer.count = 0

    def counted(body):
        answer.count += 1
        return answer(body)

    with serving(answer=counted) as server:
        write_teacher(paths, server.url, votes=4, temperature=0.8, concurrency=1)
        run("--rows", "test", "--name", "votes")
    rows, _ = read(paths, "votes")
    assert rows.probs[0].tolist() == [[0.5, 0.5, 0]] * 6 and len(server.bodies) == 24


def test_a_file_of_texts_is_labelled_in_part(paths, moods, capsys, tmp_path):
    (tmp_path / "new.csv").write_text("id,text\na,so glad\nb,so mad\nc,so\n")
    with serving(plan=lambda number, body: "refuse" if last_text(body) == "so" else "answer") as server:
        write_teacher(paths, server.url)
        run("--rows", tmp_path / "new.csv", "--name", "new")
        shown = capsys.readouterr().out
        rows, _ = read(paths, "new")
        assert np.isnan(rows.probs[0, 2]).all() and rows.probs[0, 1].tolist() == [0, 0, 1]
        assert "1 of 3 answers refused" in shown and "1 of 3 rows have no usable answer" in shown
        server.plan = lambda number, body: "answer"
        run("--rows", tmp_path / "new.csv", "--name", "new")
        assert server.n_requests == 3
        run("--rows", tmp_path / "new.csv", "--name", "new", "--retry_failed")
        assert server.n_requests == 4


def test_a_price_above_the_limit_is_asked_about(paths, moods, capsys, monkeypatch):
    with serving() as server:
        write_teacher(paths, server.url, input_price=1000.0, cost_limit=0.01)
        said = refused(capsys, "--teacher", "t", "--rows", "train")
        assert (
            "above cost_limit, $0.0100, and this is not a terminal to ask in. Add --yes" in said
            and server.n_requests == 0
        )
        run("--rows", "train", "--yes", "--limit", "3")
        assert server.n_requests == 3


def test_new_texts_are_written_for_labels(paths, moods, capsys):
    def answer(body):
        number = body["messages"][-1]["content"].split("request ")[1][0]
        return json.dumps({"texts": [{"text": f"so happy {number} {i}", "labels": ["anger"]} for i in range(5)]})

    with serving(answer=answer) as server:
        write_teacher(paths, server.url)
        run("--write", "new", "--for_labels", "joy", "--count", 8)
    rows, _ = read(paths, "t-new")
    assert len(server.bodies) == 2 and rows.kind == "written" and len(rows.texts) == 10 and rows.origins is None
    assert rows.probs[0].tolist() == [[1, 0, 1]] * 10  # what was asked for, and what the teacher added
    assert "did you mean 'joy'" in refused(capsys, "--teacher", "t", "--write", "new", "--for_labels", "joi")


def test_paraphrases_name_their_original_and_have_its_labels(paths, moods):
    with serving(answer=lambda body: json.dumps({"texts": [f"again: {last_text(body)}", last_text(body)]})) as server:
        write_teacher(paths, server.url)
        run("--write", "paraphrases", "--for_labels", "fear", "--count", 2)
    rows, _ = read(paths, "t-paraphrases")
    assert len(server.bodies) == 9 == len(rows.texts)  # the copies of the originals are left out
    assert rows.origins[0] == "r0" and rows.texts[0].startswith("again: row 0")
    assert (rows.probs[0, :, 1] == 1).all()


def test_two_at_once_on_one_log_are_refused(paths, moods, capsys):
    from foldblend.files import hold_lock

    write_teacher(paths, "http://127.0.0.1:9/v1")
    with hold_lock(moods / ".t-test.answers.jsonl.lock"):
        assert guard(lambda: run("--rows", "test")) == 75
    assert "data/moods/t-test.answers.jsonl: another teach.py asks for it now" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "no teacher named; expected one of --from-blend, --teacher NAME, --local MODEL"),
        (["--teacher", "t", "--from-blend"], "--from-blend and --teacher named"),
        (["--teacher", "opnai"], "did you mean 'openai'"),
        (["--from-blend", "--votes", "3"], "--votes belongs to --teacher NAME"),
        (["--teacher", "t", "--rows", "nowhere.csv"], "'nowhere.csv', and there is no such file"),
        (["--teacher", "t", "--count", "3"], "--for_labels and --count belong to --write"),
        (["--teacher", "t", "--write", "new"], "--for_labels NAME"),
        (["--teacher", "t", "--strategy", "mean_probs"], "--strategy belongs to --from-blend"),
        (["--teacher", "t", "--votez", "3"], "unknown flag --votez; did you mean --votes?"),
    ],
)
def test_flags_that_do_not_fit_are_refused(paths, moods, capsys, flags, message):
    write_teacher(paths, "http://127.0.0.1:9/v1")
    assert message in refused(capsys, *flags)
