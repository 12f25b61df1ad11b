"""The sample competition: the same bytes everywhere, with the faults and rates of real tweets."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest
from tiny_competition import PROJECT

from foldblend.data.reading import FileForm, Problems, parse_table
from foldblend.data.sample import LABELS, sample_files
from foldblend.data.tables import load_tables
from foldblend.settings.loading import load_competition
from foldblend.settings.paths import Paths

SHA256 = {
    "train.csv": "4186e0a2647cb781442c5c685d1d405005b069750886e2bf0e467b332a194d0a",
    "test.csv": "5539bbc37d27b9d010c1738c8db81db0903528273c9d2ad07543b80d2d96b790",
    "sample_submission.csv": "43c47ae84c348394b9ebdffeec3ae3f0f2b1285b435e38a6b70f748c95b0319a",
    "truth.csv": "77e6dcae598c1269f3c7c917cf1f8ae2c4a1e2943041727616d29f5a1daf7c9c",
}
RATES = {
    "anger": 0.37, "anticipation": 0.14, "disgust": 0.38, "fear": 0.17, "joy": 0.37, "love": 0.11, "optimism": 0.29,
    "pessimism": 0.11, "sadness": 0.29, "surprise": 0.05, "trust": 0.05,
}  # fmt: skip
"""SemEval-2018 task 1 E-c, English, training part."""


@pytest.fixture(scope="module")
def files():
    return sample_files()[0]


@pytest.fixture(scope="module")
def tables(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return load_tables(load_competition(Paths(PROJECT), "sample"), folder)


def test_bytes_are_the_same_on_every_machine(files):
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == SHA256


def test_shape_and_names(tables):
    assert tables.labels.shape == (2000, 11)
    assert len(tables.test_ids) == 2000
    assert tables.label_names == LABELS == tuple(RATES)
    assert not set(tables.train_ids) & set(tables.test_ids)


def test_label_rates_company_and_empty_rows(tables):
    rates = dict(zip(tables.label_names, tables.labels.mean(axis=0)))
    for name, expected in RATES.items():
        assert rates[name] == pytest.approx(expected, rel=0.15, abs=0.015), name
    assert tables.labels.sum(axis=1).mean() == pytest.approx(2.36, abs=0.1)
    assert 0.02 < (~tables.labels.any(axis=1)).mean() < 0.04
    company = np.corrcoef(tables.labels.T)
    at = {name: k for k, name in enumerate(tables.label_names)}
    for one, other in (("anger", "disgust"), ("joy", "optimism"), ("joy", "love"), ("sadness", "pessimism")):
        assert company[at[one], at[other]] > 0.15, (one, other)
    assert company[at["joy"], at["anger"]] < -0.4


def test_faults_of_real_tweets(tables):
    texts = tables.train_texts
    labels_of = defaultdict(set)
    for text, labels in zip(texts, tables.labels.tolist()):
        labels_of[text].add(tuple(labels))
    assert sum(count - 1 for count in Counter(texts).values()) > 30
    assert sum(len(labels) > 1 for labels in labels_of.values()) > 10
    assert set(texts) & set(tables.test_texts)
    for piece, least in (
        ("@", 400),
        ("#", 300),
        ("https://t.co/", 150),
        ("\n", 20),
        ('"', 20),
        ("&amp;", 10),
        (",", 300),
    ):
        assert sum(piece in text for text in texts) > least, piece
    assert sum(any(ord(letter) > 0x1F000 for letter in text) for text in texts) > 200
    assert {"None", "NA", "null"} & set(texts + tables.test_texts)


def test_the_test_files_labels_say_none_and_truth_is_kept_aside(files, tables):
    test = parse_table(files["test.csv"], FileForm(), Problems("test.csv"))
    truth = parse_table(files["truth.csv"], FileForm(), Problems("truth.csv"))
    assert {cell for row in test.rows for cell in row[2:]} == {"NONE"}
    assert truth.column("ID") == test.column("ID") == tables.sample_ids.tolist()
    assert {cell for row in truth.rows for cell in row[1:]} == {"0", "1"}
    assert {cell for row in tables.sample_rows for cell in row[1:]} == {"0"}


def test_the_text_carries_the_labels_but_not_all_of_them(files, tables):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.multiclass import OneVsRestClassifier

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    model = OneVsRestClassifier(LogisticRegression(class_weight="balanced"))
    model.fit(words.fit_transform(tables.train_texts), tables.labels.astype(int))
    truth = parse_table(files["truth.csv"], FileForm(), Problems("truth.csv"))
    labels = np.array([row[1:] for row in truth.rows]) == "1"
    decided = model.predict(words.transform(tables.test_texts))
    assert 0.5 < f1_score(labels, decided, average="macro") < 0.7
