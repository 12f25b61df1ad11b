"""Toy competitions on disk, with the truth of their test rows beside: three moods, said by the words of a text."""

import numpy as np

FILLERS = "today it was the plain".split()
MOODS = {"joy": "happy glad joyful", "sadness": "sad gloomy tearful", "anger": "angry furious mad"}
N_TRAIN, N_TEST = 560, 60
TASKS = {"toy": "multilabel", "one": "multiclass"}


def write_competition(paths, name):
    """Files and YAML of competition `name`. Returns train labels and test labels, bool (n, 3)."""
    rng = np.random.default_rng(0)
    n_rows = N_TRAIN + N_TEST
    single = TASKS[name] == "multiclass"
    labels = np.eye(3, dtype=bool)[rng.integers(0, 3, n_rows)] if single else rng.random((n_rows, 3)) < 0.4
    texts = [write_text(row, rng) for row in labels]
    header, data = ",".join(["id", "text", *MOODS]), paths.data(name)
    lines = [f"r{i},{text},{','.join(map(str, row.astype(int)))}" for i, (text, row) in enumerate(zip(texts, labels))]
    test = [line.rsplit(",", 3)[0] for line in lines[N_TRAIN:]]
    answers = [f"r{i},{','.join('100' if single else '000')}" for i in range(N_TRAIN, n_rows)]
    data.mkdir(parents=True)
    (data / "train.csv").write_text("\n".join([header, *lines[:N_TRAIN], ""]))
    (data / "test.csv").write_text("\n".join(["id,text", *test, ""]))
    (data / "sample_submission.csv").write_text("\n".join([f"id,{','.join(MOODS)}", *answers, ""]))
    settings = f"id_column: id\ntask: {TASKS[name]}\nn_folds: 2\nnear_duplicates: 1.0\n"
    (paths.configs / "competitions" / f"{name}.yaml").write_text(settings)
    return labels[:N_TRAIN], labels[N_TRAIN:]


def write_text(row, rng):
    words = [mood.split()[rng.integers(0, 3)] for mood, has in zip(MOODS.values(), row) if has]
    first, last = rng.choice(FILLERS, 2)
    return " ".join([first, "it was", *words, "the", last])
