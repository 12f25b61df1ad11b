"""Public competitions whose answers have other shapes, as small made-up files: first YAML to checked CSV."""

import numpy as np
import pytest
from made_competition import f1, made_text, to_submission, write_made
from sklearn.metrics import cohen_kappa_score

from foldblend.commands import guard, make_folds
from foldblend.scoring.metrics.formulas import group_auc
from foldblend.scoring.metrics.table import METRICS

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

MISCONCEPTIONS = ("Wrong_fraction", "Incomplete", "Adding_terms", "Inversion", "WNB", "SwapDividend", "Scale", "Mult")


def map_rows(rng, n_rows):
    """Rows of MAP: question, answer, explanation, category and misconception; and each row's candidates.

    Each of four questions has two misconceptions of its own; whether the answer is correct is known.
    """
    rows, candidates = [], []
    for row in range(n_rows):
        question, correct = int(rng.integers(4)), bool(rng.integers(2))
        own = MISCONCEPTIONS[2 * question : 2 * question + 2]
        kind = rng.choice(["Correct", "Neither"]) if correct else rng.choice(["Misconception", "Neither"])
        category = f"{correct}_{kind}"
        misconception = str(rng.choice(own)) if kind == "Misconception" else "NA"
        said = [f"{kind.lower()}word"] + ([f"{misconception.lower()}word"] if misconception != "NA" else [])
        rows.append([f"{row}", f"q{question}", f"answer{int(correct)}", made_text(rng, said), category, misconception])
        kinds = ["True_Correct:NA", "True_Neither:NA"] if correct else [f"False_Misconception:{one}" for one in own]
        candidates.append(kinds if correct else [*kinds, "False_Neither:NA"])
    return rows, candidates


MAP = {
    "id_column": "row_id",
    "task": "ranked",
    "metric": "map_at_k",
    "k": 3,
    "n_folds": 3,
    "near_duplicates": 1.0,
    "text": {
        "columns": ["QuestionText", "MC_Answer", "StudentExplanation"],
        "template": "{QuestionText} {MC_Answer} | {StudentExplanation}",
    },
    "labels": {"form": "class", "template": "{Category}:{Misconception}"},
    "submission": {"column": "Category:Misconception"},
}


def map_at_3(rows, truth):
    """By the cells of the CSV, with Kaggle's own words."""
    scores = []
    for (_, cell), right in zip(rows, truth, strict=True):
        listed = cell.split(" ")
        assert 1 <= len(listed) <= 3 and len(set(listed)) == len(listed)
        scores.append(1 / (listed.index(right) + 1) if right in listed else 0)
    return float(np.mean(scores))


@pytest.mark.parametrize("has_candidates", [False, True])
def test_map_lists_three_misconceptions(paths, capsys, has_candidates):
    """MAP - Charting Student Math Misunderstandings: the label is two columns, the answer three of them, MAP@3."""
    rng = np.random.default_rng(0)
    rows, candidates = map_rows(rng, 220)
    settings = MAP | {"labels": MAP["labels"] | ({"candidates": "possible"} if has_candidates else {})}
    header = ["row_id", "QuestionText", "MC_Answer", "StudentExplanation", "Category", "Misconception", "possible"]
    full = [[*row, ",".join(cell)] for row, cell in zip(rows, candidates, strict=True)]
    train_rows = [header, *full[:160]]
    test_rows = [[*header[:4], "possible"], *([*row[:4], row[6]] for row in full[160:])]
    sample = [["row_id", "Category:Misconception"]]
    sample += [[row[0], "True_Correct:NA False_Neither:NA False_Misconception:Incomplete"] for row in full[160:]]
    write_made(paths, settings, train_rows, test_rows, sample)
    answers, written, printed = to_submission(paths, capsys)
    said = " ".join(printed.split())
    truth = [f"{row[4]}:{row[5]}" for row in full[160:]]
    reached = map_at_3(written[1:], truth)
    assert written[0] == ["row_id", "Category:Misconception"] and "Score table: map_at_3" in said
    n_labels = len({(row[4], row[5]) for row in full[:160]})
    assert f"the labels are what 'Category', 'Misconception' says, sorted: {n_labels} of them" in said
    assert answers.shape == (60, n_labels) and set(np.unique(answers)) <= {0, 1 / 3, 1 / 2, 1}
    assert reached > (0.95 if has_candidates else 0.85)
    if has_candidates:
        for (_, cell), possible in zip(written[1:], candidates[160:], strict=True):
            assert set(cell.split(" ")) <= set(possible)  # two of them if only two are possible


def test_a_list_of_many_likely_labels_of_rows_with_several(paths, capsys):
    """Recommendations of the Eedi kind: several right labels, numbers as names, written as floats, MAP@25 as lists."""
    rng = np.random.default_rng(1)
    labels = rng.random((150, 12)) < 0.15
    labels[np.arange(150), rng.integers(0, 12, 150)] = True
    texts = [made_text(rng, [f"topic{k}word" for k in np.flatnonzero(row)]) for row in labels]
    settings = {
        "id_column": "id",
        "task": "ranked",
        "metric": "map_at_25",
        "n_folds": 3,
        "near_duplicates": 1.0,
        "labels": {"form": "delimited", "column": "right", "delimiter": ";", "constants": {"99": 0}},
        "submission": {"column": "MisconceptionId", "list": "python", "values": "names"},
    }
    cell = lambda row: ";".join(f"{k}.0" for k in np.flatnonzero(row))  # noqa: E731
    train = [["id", "text", "right"], *([f"r{k}", texts[k], cell(labels[k])] for k in range(110))]
    test = [["id", "text"], *([f"t{k}", texts[k]] for k in range(110, 150))]
    sample = [["id", "MisconceptionId"], *([row[0], "['0', '1', '2']"] for row in test[1:])]
    write_made(paths, settings, train, test, sample)
    answers, written, printed = to_submission(paths, capsys)
    assert answers.shape == (40, 13) and (answers[:, :12] > 0).all()  # 12 labels are fewer than 25
    assert written[1][1].startswith("['") and "'99'" not in written[1][1]  # a constant no is not listed
    best = answers[:, :12].argmax(axis=1)
    assert labels[110:][np.arange(40), best].mean() > 0.9
    assert "Score table: map_at_25" in printed and "thresholds, " not in printed.split("Chosen")[1]


def test_llm_classification_has_two_answers_and_three_probabilities(paths, capsys):
    """LLM classification finetuning (LMSYS): prompt, two responses, 0/1 in three columns, log loss."""
    rng = np.random.default_rng(2)
    names = ["winner_model_a", "winner_model_b", "winner_tie"]
    winner = rng.integers(0, 3, 180)
    texts = [[f"prompt {k}", made_text(rng, ["good"] * int(w != 1)), made_text(rng, ["fine"] * int(w != 0))]
             for k, w in enumerate(winner)]  # fmt: skip
    settings = {
        "id_column": "id",
        "task": "multiclass",
        "metric": "log_loss",
        "n_folds": 3,
        "near_duplicates": 1.0,
        "text": {
            "columns": ["prompt", "response_a", "response_b"],
            "template": "{prompt} [A] {response_a} [B] {response_b}",
        },
        "submission": {"form": "probabilities"},
    }
    one_hot = np.eye(3, dtype=int)[winner]
    train = [["id", "model_a", "model_b", "prompt", "response_a", "response_b", *names]]
    train += [[f"{k}", "gpt", "llama", *texts[k], *one_hot[k]] for k in range(120)]
    test = [["id", "prompt", "response_a", "response_b"], *([f"{k}", *texts[k]] for k in range(120, 180))]
    sample = [["id", *names], *([row[0], 0.333, 0.333, 0.333] for row in test[1:])]
    write_made(paths, settings, train, test, sample)
    answers, rows, _ = to_submission(paths, capsys)
    assert rows[0] == ["id", *names] and answers.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (answers.argmax(axis=1) == winner[120:]).mean() > 0.8


def test_aes_2_grades_essays_from_1_to_6(paths, capsys):
    """Automated Essay Scoring 2: an integer score, quadratic weighted kappa, a sample of threes."""
    rng = np.random.default_rng(3)
    score = np.clip(np.round(rng.normal(3.2, 1.1, 240)), 1, 6).astype(int)
    texts = [made_text(rng, ["well"] * s + ["poor"] * (6 - s)) for s in score]
    settings = {
        "id_column": "essay_id",
        "task": "ordinal",
        "metric": "quadratic_weighted_kappa",
        "n_folds": 3,
        "near_duplicates": 1.0,
        "text": {"columns": ["full_text"]},
        "labels": {"form": "class", "column": "score", "names": list("123456")},
        "submission": {"form": "class", "column": "score"},
    }
    train = [["essay_id", "full_text", "score"], *([f"r{k}", texts[k], score[k]] for k in range(180))]
    test = [["essay_id", "full_text"], *([f"t{k}", texts[k]] for k in range(180, 240))]
    sample = [["essay_id", "score"], *([row[0], 3] for row in test[1:])]
    write_made(paths, settings, train, test, sample)
    _, rows, printed = to_submission(paths, capsys)
    assert cohen_kappa_score([int(row[1]) for row in rows[1:]], score[180:], weights="quadratic") > 0.6
    assert "Score table: quadratic_weighted_kappa" in printed


def test_quora_has_one_rare_label_and_a_hidden_test(paths, capsys):
    """Quora insincere questions: F1 of one label of 6 %, called otherwise in the sample; a code competition."""
    rng = np.random.default_rng(4)
    insincere = rng.random(420) < 0.1
    texts = [made_text(rng, ["why", "do", *(["hateword"] if yes else [])]) for yes in insincere]
    settings = {
        "id_column": "qid",
        "n_folds": 3,
        "near_duplicates": 1.0,
        "files": {"hidden_test_rows": 376_000},
        "text": {"columns": ["question_text"]},
        "labels": {"rename": {"target": "prediction"}},
    }
    train = [["qid", "question_text", "target"], *([f"r{k}", texts[k], int(insincere[k])] for k in range(300))]
    test = [["qid", "question_text"], *([f"t{k}", texts[k]] for k in range(300, 420))]
    sample = [["qid", "prediction"], *([row[0], 0] for row in test[1:])]
    write_made(paths, settings, train, test, sample)
    answers, rows, printed = to_submission(paths, capsys)
    assert rows[0] == ["qid", "prediction"] and f1(answers, insincere[300:, None]) > 0.9
    assert "376,000 test rows of files.hidden_test_rows" in printed


def test_acrc_is_judged_by_the_auc_of_each_rule(paths, capsys):
    """Jigsaw - Agile Community Rules: comments under rules, AUC averaged over rules; one rule has no violation yet."""
    rng = np.random.default_rng(5)
    rules = ["No Advertising", "No legal advice", "No spoilers", "Be nice"]
    rule = rng.integers(0, 4, 260)
    violates = (rng.random(260) < np.array([0.8, 0.2, 0.5, 0.0])[rule]).astype(int)  # rules differ in their rates
    texts = [made_text(rng, ["badword"] * (v and rng.random() < 0.9)) for v in violates]
    settings = {
        "id_column": "row_id",
        "metric": "group_auc",
        "metric_by": "rule",
        "n_folds": 3,
        "near_duplicates": 1.0,
        "text": {"columns": ["rule", "body", "subreddit"], "template": "{rule} | {subreddit}: {body}"},
        "submission": {"form": "probabilities"},
    }
    header = ["row_id", "body", "rule", "subreddit", "rule_violation"]
    train = [header, *([f"{k}", texts[k], rules[rule[k]], f"r/{k % 5}", violates[k]] for k in range(200))]
    test = [header[:4], *([f"{k}", texts[k], rules[rule[k]], f"r/{k % 5}"] for k in range(200, 260))]
    sample = [["row_id", "rule_violation"], *([row[0], 0.5] for row in test[1:])]
    write_made(paths, settings, train, test, sample)
    answers, _, printed = to_submission(paths, capsys)
    said = " ".join(printed.split())
    assert group_auc(violates[200:, None] > 0, answers, rule[200:]) > 0.85
    assert "averaged over 3 of 4 groups of rows; not scored, as all rows say the same: 'Be nice'" in said
    assert "Score table: group_auc" in said and "held-out macro_f1" in said


def test_two_texts_of_a_row_are_compared(paths, capsys):
    """A set of pairs (natural language inference): premise and hypothesis, one of three classes."""
    rng = np.random.default_rng(6)
    names = ["entailment", "neutral", "contradiction"]
    truth = rng.integers(0, 3, 160)
    pairs = [[made_text(rng, ["cat"]), made_text(rng, [("animal", "hungry", "dog")[k]])] for k in truth]
    settings = {
        "id_column": "id",
        "task": "multiclass",
        "metric": "accuracy",
        "n_folds": 3,
        "near_duplicates": 1.0,
        "text": {"pair": ["premise", "hypothesis"]},
        "labels": {"form": "class", "column": "label", "values": "numbers", "names": names},
        "submission": {"form": "class", "column": "prediction", "values": "numbers"},
    }
    train = [["id", "premise", "hypothesis", "label"], *([f"r{k}", *pairs[k], truth[k]] for k in range(120))]
    test = [["id", "premise", "hypothesis"], *([f"t{k}", *pairs[k]] for k in range(120, 160))]
    sample = [["id", "prediction"], *([row[0], 0] for row in test[1:])]
    write_made(paths, settings, train, test, sample)
    _, rows, _ = to_submission(paths, capsys)
    assert (np.array([int(row[1]) for row in rows[1:]]) == truth[120:]).mean() > 0.9


@pytest.mark.parametrize("metric", ["rmse", "spearman"])
def test_values_are_predicted_on_their_own_scale(paths, capsys, metric):
    """CommonLit readability, Google QUEST: numbers of any range in several columns, judged by RMSE or Spearman."""
    rng = np.random.default_rng(7)
    hard, fun = rng.integers(0, 6, (2, 260))
    texts = [made_text(rng, ["obscure"] * h + ["laugh"] * f) for h, f in zip(hard, fun, strict=True)]
    values = np.stack([1.5 - hard + rng.normal(0, 0.1, 260), 10.0 * fun], axis=1)
    settings = {
        "id_column": "id",
        "task": "regression",
        "metric": metric,
        "n_folds": 3,
        "near_duplicates": 1.0,
        "text": {"columns": ["excerpt"]},
        "labels": {"unknown": ["NA"]},
    }
    train = [["id", "excerpt", "target", "fun"], *([f"r{k}", texts[k], *values[k]] for k in range(200))]
    train[3][2] = "NA"
    test = [["id", "excerpt"], *([f"t{k}", texts[k]] for k in range(200, 260))]
    sample = [["id", "target", "fun"], *([row[0], "0.0", "0"] for row in test[1:])]
    write_made(paths, settings, train, test, sample)
    answers, rows, printed = to_submission(paths, capsys)
    assert rows[0] == ["id", "target", "fun"] and answers.shape == (60, 2)
    for mine, true in zip(answers.T, values[200:].T, strict=True):
        assert np.corrcoef(mine, true)[0, 1] > 0.8 and abs(mine.mean() - true.mean()) < 0.3 * true.std()
    honest = float(printed.split("choice included: ")[1].split()[0])
    reached = METRICS[metric].score(values[200:], answers)
    assert reached == pytest.approx(honest, rel=0.3) and "label rates differ" not in printed
    low, high = (float(word) for word in printed.split("interval ")[1].split()[:3:2])
    assert low <= honest <= high


# ---------- What cannot be, said before anything is trained


def refused(paths, capsys, settings, train, test, sample=None):
    """What make_folds.py says of such a competition."""
    sample = sample or [["row_id", "answer"], *([row[0], "a b"] for row in test[1:])]
    write_made(paths, settings, train, test, sample)
    assert guard(lambda: make_folds.main(["--competition", "made"])) == 2
    return capsys.readouterr().err


TRAIN = [["row_id", "text", "label", "possible"], *([f"r{k}", f"text {k}", "abc"[k % 3], "a,b,c"] for k in range(12))]
TEST = [["row_id", "text", "possible"], *([f"t{k}", f"text {k}", "a,b"] for k in range(4))]
RANKED = {
    "id_column": "row_id",
    "task": "ranked",
    "metric": "map_at_2",
    "n_folds": 2,
    "labels": {"form": "class", "column": "label"},
    "submission": {"column": "answer"},
}


def test_a_label_with_the_separator_in_its_name_is_refused(paths, capsys):
    train = [[cell if cell != "c" else "c d" for cell in row] for row in TRAIN]
    said = refused(paths, capsys, RANKED, train, TEST)
    assert "label 'c d' contains submission.delimiter ' ', so a list could be read two ways" in said
    named = RANKED | {"labels": {**RANKED["labels"], "names": ["a", "b", "c d"]}}
    assert "label 'c d' contains submission.delimiter ' '" in refused(paths, capsys, named, train, TEST)


def test_candidates_that_are_no_labels_are_refused_or_noted(paths, capsys):
    labels = RANKED["labels"] | {"candidates": "possible"}
    test = [list(row) for row in TEST]
    test[2][2] = "a,x"
    named = RANKED | {"labels": labels | {"names": ["a", "b", "c"]}}
    assert "row 2 (line 3): unknown label 'x'" in refused(paths, capsys, named, TRAIN, test)
    said = refused(paths, capsys, named, TRAIN, [row[:2] for row in TEST])
    assert "column 'possible' is missing" in said and "test.csv" in said
    train = [list(row) for row in TRAIN]
    train[1][3], train[2][3], test[3][2] = "b,c", "", "x"
    sample = [["row_id", "answer"], *([row[0], "a b"] for row in test[1:])]
    write_made(paths, RANKED | {"labels": labels}, train, test, sample)
    assert guard(lambda: make_folds.main(["--competition", "made"])) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "the label of 1 of 12 rows is not among its candidates in 'possible', so that no answer" in said
    assert "right: row 1" in said and "'possible' is empty in 1 rows, which allows every label: row 2" in said
    assert "1 candidates in 'possible' are no label of the training file and are never answered: 'x'" in said
    assert "no candidate of 1 rows is learned, so every label is allowed: row 3" in said


def test_missing_columns_of_a_template_and_of_groups_are_named(paths, capsys):
    labels = {"form": "class", "template": "{label}:{kind}"}
    said = refused(paths, capsys, RANKED | {"labels": labels}, TRAIN, TEST)
    assert "column 'kind' is missing" in said and "{label}" not in said
    settings = {"id_column": "row_id", "metric": "group_auc", "metric_by": "rule", "n_folds": 2}
    settings |= {"submission": {"form": "probabilities"}}
    train = [["row_id", "text", "yes"], *([f"r{k}", f"text {k}", k % 2] for k in range(12))]
    said = refused(paths, capsys, settings, train, TEST, [["row_id", "yes"], *([row[0], 0.5] for row in TEST[1:])])
    assert "column 'rule' is missing" in said


def test_what_is_no_value_is_refused(paths, capsys):
    settings = {"id_column": "row_id", "task": "regression", "metric": "rmse", "n_folds": 2}
    train = [["row_id", "text", "grade"], *([f"r{k}", f"text {k}", k / 2] for k in range(12))]
    train[4][2] = "A+"
    sample = [["row_id", "grade"], *([row[0], 1] for row in TEST[1:])]
    said = refused(paths, capsys, settings, train, TEST, sample)
    assert "row 4 (line 5): 'grade' is 'A+'; expected a number" in said and 'labels.unknown: ["A+"]' in said
    same = [row if not k else [*row[:2], 3] for k, row in enumerate(train)]
    assert "'grade' is 3.0 in every row, so nothing can be learned" in refused(
        paths, capsys, settings, same, TEST, sample
    )
