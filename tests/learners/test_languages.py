"""Words that marks alone tell apart, in scripts with and without spaces (cases accents_*), by the linear learners."""

import unicodedata

import numpy as np
import pytest
from toy_corpus import fold_rows

from foldblend.learners.nbsvm import NbsvmLearner
from foldblend.learners.table import Corpus
from foldblend.learners.tfidf import TfidfLearner, build_counters, fold_case
from foldblend.settings.loading import run_from_settings
from foldblend.settings.records import changed_settings, default_settings_of, with_defaults
from foldblend.settings.run import RunSettings, TfidfSettings

# language -> two words per label that marks alone tell apart, other words, and what stands between words
LANGUAGES = {
    "french": (["péché pêche", "mûr mur", "sale salé"], "pain ville rue fleur chien des la sur", " "),
    "vietnamese": (["mừng mưng", "buồn buôn", "giận gian"], "ghế xe hoa sách nắng trời lá quả", " "),
    "japanese": (["ばか はか", "かぎ かき", "たんご たんこ"], "はな くるま がっこう みず あめ いえ き", " "),
    "hindi": (["दिन दीन", "सुख सूख", "कल काल"], "घर पानी फूल सड़क पेड़ किताब", " "),
    "thai": (["ข่าว ข้าว", "ไกล ใกล้", "เสือ เสื้อ"], "บ้าน น้ำ ดอกไม้ ถนน รถ หนังสือ", ""),
    "chinese": (["喜 恨", "爱 怒", "笑 哭"], "天 地 人 山 水 火 书 车", ""),
}


def corpus_of(language, n=240):
    """Each label is there if the first word of its pair is, and the second word stands for its absence."""
    pairs, others, space = LANGUAGES[language]
    rng = np.random.default_rng(0)
    labels = rng.random((n, len(pairs))) < 0.5
    others, texts = others.split(), []
    for row in labels:
        words = [pair.split()[0 if has else 1] for pair, has in zip(pairs, row, strict=True)]
        words += rng.choice(others, 4).tolist()
        texts.append(space.join(rng.permutation(words).tolist()))
    return Corpus((*texts, texts[0]), labels, tuple("abc"), "multilabel")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("learner", [TfidfLearner, NbsvmLearner])
def test_words_that_marks_tell_apart_are_learned(tmp_path, language, learner):
    corpus = corpus_of(language)
    name = "tfidf" if learner is TfidfLearner else "nbsvm"
    score = learner(RunSettings(name), corpus).train_fold(fold_rows(corpus, tmp_path)).score["macro_f1"]
    assert score > 0.93, score


@pytest.mark.parametrize("language", ["french", "vietnamese", "japanese"])
def test_stripped_they_are_the_same_word(tmp_path, language):
    corpus = corpus_of(language)
    run = RunSettings("tfidf", tfidf=TfidfSettings(strip_accents=True))
    assert TfidfLearner(run, corpus).train_fold(fold_rows(corpus, tmp_path)).score["macro_f1"] < 0.7


def words(text, **settings):
    (counter,) = build_counters(TfidfSettings(word_ngrams=(1, 1), char_ngrams=(0, 0), **settings))
    return counter.build_analyzer()(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Don't stop, I 😀!", "don ' t stop , i 😀 !"),
        ("हिन्दी भाषा क्\u200dष", "हिन्दी भाषा क्\u200dष"),
        ("தமிழ் மொழி", "தமிழ் மொழி"),
        ("日本語 か", "日 本 語 か"),
        ("สวัสดี", "ส วั ส ดี"),
        ("ＡＢＣ ｱｲ", "abc ア イ"),
        ("مُحَمَّد", "محمد"),
        ("שָׁלוֹם", "שלום"),
        ("İstanbul", "istanbul"),
        ("❤️ 1️⃣", "❤ \ufe0f 1 \ufe0f \u20e3"),
    ],
)
def test_words_of_scripts(text, expected):
    assert words(text) == expected.split(" ")


def test_composed_and_decomposed_are_one_spelling():
    text = "Ênfàse Tiếng Việt が"
    assert fold_case(text) == fold_case(unicodedata.normalize("NFD", text))


def test_plain_english_has_the_words_it_had():
    """Emoji, punctuation and apostrophes included, so that only texts with marks or other scripts change."""
    text = "I can't even… “really”? 😀👩‍🚀 #tag @user 100% ½ ™ a_b 3.5"
    assert words(text) == words(text, strip_accents=True)


def test_a_run_of_before_keeps_what_it_did():
    """A record without the setting strips accents, as every run did; a new YAML does not."""
    older = {"learner": "tfidf", "seed": 42, "tfidf": {"min_rows": 3}}
    assert run_from_settings(older, "record").tfidf == TfidfSettings(min_rows=3, strip_accents=True)
    assert with_defaults(older)["tfidf"]["strip_accents"] is True
    assert default_settings_of(RunSettings("nbsvm"))["tfidf"]["strip_accents"] is True
    assert not RunSettings("tfidf").tfidf.strip_accents and changed_settings(RunSettings("tfidf")) == []
    assert run_from_settings({"learner": "encoder", "seed": 1}, "record").learner == "encoder"
