"""Public competitions with unusual labels, as small made-up files of the same form: first YAML to checked CSV."""

import numpy as np
import pytest
from made_competition import f1, made_text, to_submission, write_made

from foldblend.commands import guard, predict, train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def draw_labels(rng, n_rows, rates):
    return rng.random((n_rows, len(rates))) < np.array(rates)


def texts_of(rng, labels, names):
    return [made_text(rng, [f"{names[k]}word" for k in np.flatnonzero(row)]) for row in labels]


def test_reuters_has_90_topics_and_a_fifth_of_them_in_fewer_rows_than_folds(paths, capsys):
    """Reuters-21578, ModApte: topics in one cell, many with a handful of rows; the label order is the sample's."""
    rng = np.random.default_rng(0)
    names = [f"topic{k}" for k in range(90)]
    labels = np.zeros((260, 90), bool)
    labels[np.arange(260), rng.integers(0, 12, 260)] = True
    counts = [0] * 5 + [1] * 6 + [2] * 5 + [3] * 5 + [6] * 57  # of topics 12 to 89
    for k, count in zip(range(12, 90), counts, strict=True):
        labels[rng.choice(200, count, replace=False), k] = True
    texts = texts_of(rng, labels, names)
    cell = lambda row: " ".join(names[k] for k in np.flatnonzero(row))  # noqa: E731
    settings = {
        "id_column": "id",
        "n_folds": 5,
        "labels": {"form": "delimited", "column": "topics", "delimiter": " ", "names": names},
        "submission": {"form": "delimited", "column": "topics"},
    }
    train = [["id", "text", "topics"], *([f"r{k}", texts[k], cell(labels[k])] for k in range(200))]
    test = [["id", "text"], *([f"t{k}", texts[k]] for k in range(200, 260))]
    sample = [["id", "topics"], *([f"t{k}", "topic0"] for k in range(200, 260))]
    write_made(paths, settings, train, test, sample)
    answers, _, printed = to_submission(paths, capsys)
    assert "11 of 90 labels are not learned, but answered by a constant in every row" in printed
    assert "no, as 0 of 200 rows have it" in printed and "no, as 1 of 200 rows has it" in printed
    assert answers.shape == (60, 90) and not answers[:, 12:23].any()
    assert f1(answers[:, :12], labels[200:, :12]) > 0.8


def test_brighter_counts_absent_emotions_and_intensities(paths, capsys):
    """BRIGHTER (SemEval 2025 task 11): a language's file lacks an emotion, intensities go from 0 to 3, and train and
    sample spell names differently."""
    rng = np.random.default_rng(1)
    names = ["Anger", "Disgust", "Fear", "Joy"]
    labels = draw_labels(rng, 180, [0.3, 0.0, 0.3, 0.4])
    texts = texts_of(rng, labels, names)
    intensity = np.where(labels, rng.integers(1, 4, labels.shape), 0)
    settings = {
        "id_column": "id",
        "n_folds": 3,
        "labels": {
            "map": {"1": "1", "2": "1", "3": "1"},
            "rename": {"anger": "Anger", "fear": "Fear", "joy": "Joy"},
            "constants": {"Disgust": 0},
        },
    }
    train = [["id", "text", "anger", "fear", "joy"]]
    train += [[f"r{k}", texts[k], *intensity[k, [0, 2, 3]]] for k in range(120)]
    test = [["id", "text"], *([f"t{k}", texts[k]] for k in range(120, 180))]
    sample = [["id", *names], *([f"t{k}", 0, 0, 0, 0] for k in range(120, 180))]
    write_made(paths, settings, train, test, sample)
    answers, rows, printed = to_submission(paths, capsys)
    assert rows[0] == ["id", *names] and {row[2] for row in rows[1:]} == {"0"}
    assert "'Disgust': no, as labels.constants says so" in printed
    assert f1(answers[:, [0, 2, 3]], labels[120:][:, [0, 2, 3]]) > 0.9


@pytest.mark.parametrize("aggregate", ["mean", "majority", "any"])
def test_unhealthy_conversations_has_a_row_per_annotator(paths, capsys, aggregate):
    """Unhealthy Conversations (Price et al. 2020): each comment several times, once per annotator, with blanks for
    what one did not answer."""
    rng = np.random.default_rng(2)
    names = ["hostile", "sarcastic"]
    labels = draw_labels(rng, 150, [0.35, 0.4])
    texts = texts_of(rng, labels, names)
    settings = {
        "id_column": "_unit_id",
        "n_folds": 3,
        "text": {"columns": ["comment"]},
        "labels": {"aggregate": aggregate, "unknown": [""], "positive_from": 0.5 if aggregate == "mean" else 0},
    }
    train = [["_unit_id", "_trusted", "comment", *names]]
    for k in range(100):
        for _ in range(3):
            noisy = np.where(rng.random(2) < 0.1, ~labels[k], labels[k]) if aggregate != "any" else labels[k]
            train.append([f"r{k}", 0.8, texts[k], *["" if rng.random() < 0.1 else int(each) for each in noisy]])
    test = [["_unit_id", "comment"], *([f"t{k}", texts[k]] for k in range(100, 150))]
    sample = [["_unit_id", *names], *([f"t{k}", 0, 0] for k in range(100, 150))]
    write_made(paths, settings, train, test, sample)
    answers, _, printed = to_submission(paths, capsys)
    assert len(answers) == 50 and "100 rows in" in printed
    assert f1(answers, labels[100:]) > 0.9


def test_emit_writes_true_and_false_and_a_word_for_no_emotion(paths, capsys):
    """EMit (EVALITA 2023): Italian tweets, several label columns in the one, a word for none in the other file."""
    rng = np.random.default_rng(3)
    names = ["gioia", "rabbia", "paura"]
    labels = draw_labels(rng, 160, [0.3, 0.3, 0.3])
    texts = texts_of(rng, labels, names)
    settings = {
        "id_column": "id",
        "n_folds": 4,
        "metric": "samples_f1",
        "labels": {"form": "delimited", "columns": ["emo1", "emo2", "emo3"], "empty": "neutro", "names": names},
        "submission": {"form": "delimited", "column": "emozioni", "delimiter": ";", "empty": "neutro"},
    }

    def cells(row):
        said = [names[k] for k in np.flatnonzero(row)] or ["neutro"]
        return said + [""] * (3 - len(said))

    train = [["id", "text", "emo1", "emo2", "emo3"], *([f"r{k}", texts[k], *cells(labels[k])] for k in range(110))]
    test = [["id", "text"], *([f"t{k}", texts[k]] for k in range(110, 160))]
    sample = [["id", "emozioni"], *([f"t{k}", "neutro"] for k in range(110, 160))]
    write_made(paths, settings, train, test, sample)
    answers, rows, printed = to_submission(paths, capsys)
    wrote = {row[1] for row in rows[1:]}
    assert "neutro" in wrote and "" not in wrote and "warning: the sample" not in printed
    assert f1(answers, labels[110:]) > 0.9


@pytest.mark.parametrize("metric", ["macro_auc", "macro_f1"])
def test_jigsaw_toxic_has_rows_of_minus_one(paths, capsys, metric):
    """Jigsaw toxic comments: rows that were not scored are -1 in every column; probabilities judged by AUC."""
    rng = np.random.default_rng(4)
    names = ["toxic", "obscene", "threat"]
    labels = draw_labels(rng, 240, [0.4, 0.3, 0.2])
    texts = texts_of(rng, labels, names)
    form = "probabilities" if metric == "macro_auc" else "columns"
    settings = {
        "id_column": "id",
        "n_folds": 3,
        "metric": metric,
        "text": {"columns": ["comment_text"]},
        "labels": {"unknown": ["-1"]},
        "submission": {"form": form},
    }
    given = labels.astype(int)
    given[rng.choice(180, 40, replace=False)] = -1
    train = [["id", "comment_text", *names], *([f"r{k}", texts[k], *given[k]] for k in range(180))]
    test = [["id", "comment_text"], *([f"t{k}", texts[k]] for k in range(180, 240))]
    blank = ["0.5"] * 3 if form == "probabilities" else ["0"] * 3
    sample = [["id", *names], *([f"t{k}", *blank] for k in range(180, 240))]
    write_made(paths, settings, train, test, sample)
    answers, _, printed = to_submission(paths, capsys)
    assert "22.2% of the labels are unknown: they teach nothing and are not scored" in printed
    assert f1(answers > 0.5 if form == "probabilities" else answers, labels[180:]) > 0.8


def numbers_say_the_label(paths):
    """A competition whose texts say nothing: an age and a country do."""
    rng = np.random.default_rng(5)
    labels = draw_labels(rng, 180, [0.5, 0.4])
    ages = np.where(labels[:, 0], 50, 20) + rng.integers(-5, 6, 180)
    countries = np.where(labels[:, 1], "it", "fr")
    rows = [[f"r{k}", made_text(rng, []), ages[k] if k % 10 else "", countries[k]] for k in range(180)]
    settings = {"id_column": "id", "n_folds": 3, "features": {"numbers": ["age"], "categories": ["country"]}}
    train = [
        ["id", "text", "age", "country", "old", "south"],
        *([*rows[k], *labels[k].astype(int)] for k in range(120)),
    ]
    test = [["id", "text", "age", "country"], *rows[120:]]
    sample = [["id", "old", "south"], *([row[0], 0, 0] for row in rows[120:])]
    write_made(paths, settings, train, test, sample)
    return labels[120:]


def test_columns_beside_the_text_are_learned_and_predicted(paths, capsys):
    truth = numbers_say_the_label(paths)
    run = paths.configs / "runs" / "words.yaml"
    run.write_text(f"{run.read_text()}use_features: true\n")
    answers, _, printed = to_submission(paths, capsys)
    assert f1(answers, truth) > 0.9 and "does not read the features" not in printed
    text = ["--competition", "made", "--text", "the street"]
    assert guard(lambda: predict.main(text)) == 0
    assert "no age, country is given, so the features count as missing" in capsys.readouterr().out
    lines = paths.root / "new.jsonl"
    lines.write_text('{"text": "a", "age": 50, "country": "it"}\n{"text": "a", "age": null, "country": "fr"}\n')
    assert guard(lambda: predict.main(["--competition", "made", "--input", str(lines)])) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "old" in shown[-3] and "*" in shown[-3].split("south")[1]
    table = paths.data("made") / "test.csv"
    table.write_text(table.read_text().replace(",it", ",fr"))
    assert guard(lambda: train.main(["--competition", "made", "--run", "words"])) == 2
    assert "the test features differ" in capsys.readouterr().err


def test_a_run_that_reads_no_features_says_so_and_outlives_them(paths, capsys):
    truth = numbers_say_the_label(paths)
    answers, _, printed = to_submission(paths, capsys)
    assert "words does not read the features age, country. To read them: use_features: true" in printed
    assert f1(answers, truth) < 0.7
    yaml = paths.configs / "competitions" / "made.yaml"
    yaml.write_text(yaml.read_text().replace("- age", "- age\n  min_rows: 3"))
    assert guard(lambda: train.main(["--competition", "made", "--run", "words"])) == 0
    assert "already trained: fold 0, 1, 2" in capsys.readouterr().out
    assert guard(lambda: train.main(["--competition", "made", "--run", "words", "--use_features", "true"])) == 2
    assert "use_features was False, is now True" in capsys.readouterr().err
