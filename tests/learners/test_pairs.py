"""Two texts per row (text.pair): read from their columns, joined by the model's own separator, predicted again."""

import json

import numpy as np
import pytest
import torch
from tiny_tokenizers import bert, decoder, roberta, sentencepiece
from toy_corpus import fold_rows

from foldblend.data.reading import TextTable
from foldblend.data.tables import build_texts
from foldblend.errors import UserError
from foldblend.learners.encoder import EncoderLearner
from foldblend.learners.table import Corpus
from foldblend.learners.tfidf import TfidfLearner
from foldblend.learners.tokens.prompts import build_prompts
from foldblend.learners.tokens.tokens import tokenize
from foldblend.settings.competition import CompetitionSettings
from foldblend.settings.data_files import PAIR, TextSettings
from foldblend.settings.nets import (
    AugmentationSettings,
    ModelSettings,
    OptimizerSettings,
    PromptSettings,
    TrainingSettings,
)
from foldblend.settings.run import RunSettings
from foldblend.submission.new_texts import typed_rows

WORDS = "happy sad mad calm".split()


def pairs_corpus(n=400):
    """One label: whether both texts say the same word, which neither says alone."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 2, n), rng.integers(0, 2, n)
    texts = [f"it was {WORDS[a]}{PAIR}today {WORDS[b]}" for a, b in zip(first, second, strict=True)]
    return Corpus((*texts, *texts[:2]), (first == second)[:, None], ("same",), "multilabel")


def encoder(folder, **settings):
    return RunSettings(
        "encoder",
        model=ModelSettings(name=str(folder), head_dropout=0.0),
        training=TrainingSettings(epochs=6, global_batch_size=16, precision="fp32", collapse_check_after_steps=0),
        optimizer=OptimizerSettings(lr=3e-3, head_lr=3e-3),
        **settings,
    )


@pytest.mark.usefixtures("fresh_accelerate")
def test_an_encoder_learns_what_neither_text_says_alone(tiny_encoder, tmp_path):
    corpus = pairs_corpus()
    learner, rows = EncoderLearner(encoder(tiny_encoder("bert")), corpus), fold_rows(corpus, tmp_path)
    got = learner.train_fold(rows)
    assert ((got.oof > 0) == corpus.labels[rows.heldout]).mean() > 0.7  # 0.5 by chance
    linear = TfidfLearner(RunSettings("tfidf"), corpus).train_fold(fold_rows(corpus, tmp_path / "linear"))
    assert linear.oof.shape == (60, 1)
    new = Corpus(corpus.texts[:60], np.zeros((0, 1), bool), corpus.label_names, corpus.task)
    again = EncoderLearner(encoder(tiny_encoder("bert")), new).predict_fold(rows.checkpoint_dir)
    assert again == pytest.approx(got.oof, abs=1e-4)


def test_rows_are_the_tokenizers_own_pairs(tmp_path):
    for kind in (bert, roberta, sentencepiece):
        tokenizer = kind(tmp_path)
        tokens = tokenize(tokenizer, (f"happy day{PAIR}it was sad", "mad"), 64)
        if kind is bert:  # the others have no form for two texts here, so their separator stands between
            assert tokens.row(0).tolist() == tokenizer("happy day", "it was sad")["input_ids"]
        assert tokens.lengths[0] == tokens.whole[0] and tokens.room == 0


def test_the_longer_text_is_cut_first(tmp_path):
    tokenizer = bert(tmp_path)
    tokens = tokenize(tokenizer, (f"happy day{PAIR}{'sad ' * 50}", f"{'mad ' * 50}{PAIR}{'sad ' * 50}"), 13)
    first, second = (tokenizer.convert_ids_to_tokens(tokens.row(row).tolist()) for row in (0, 1))
    assert first[:5] == ["[CLS]", "happy", "d", "##a", "##y"] and first[5] == "[SEP]" and len(first) == 13
    assert second.count("mad") == second.count("sad") == 5
    assert tokens.whole.tolist() == [3 + 4 + 50, 3 + 100]


def test_a_decoder_reads_them_joined():
    tokenizer = decoder()
    ids = build_prompts(tokenizer, PromptSettings(), (f"happy{PAIR}sad",), ("joy",), 64).row(0)
    assert tokenizer.decode(ids) == "happy\nsad"


@pytest.mark.usefixtures("fresh_accelerate")
def test_berts_second_text_has_its_own_segment(tiny_encoder, tmp_path):
    corpus = pairs_corpus(60)
    learner = EncoderLearner(encoder(tiny_encoder("bert")), corpus)
    model = learner.build_fold_model(fold_rows(corpus, tmp_path, 20), 0).eval()
    batch = learner.tokens.batch(np.arange(3))
    first, second = zip(*(text.split(PAIR) for text in corpus.texts[:3]), strict=True)
    expected = learner.tokenizer(list(first), list(second), return_tensors="pt", padding=True)
    seen = {}
    hook = model.encoder.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    with torch.no_grad():
        model(**batch)
    hook.remove()
    mask = batch["attention_mask"].bool()
    assert torch.equal(seen["token_type_ids"][mask], expected["token_type_ids"][mask])
    assert torch.equal(batch["input_ids"], expected["input_ids"])


@pytest.mark.usefixtures("fresh_accelerate")
def test_mixing_and_masking_are_refused(tiny_encoder, tmp_path):
    run = encoder(tiny_encoder("bert"), augmentation=AugmentationSettings(token_dropout=0.1))
    with pytest.raises(UserError, match="need one text per row; these rows have two"):
        EncoderLearner(run, pairs_corpus(60)).train_fold(fold_rows(pairs_corpus(60), tmp_path, 20))


def test_the_two_columns_are_read_and_the_separator_stays_the_only_one():
    table = TextTable(("id", "hypothesis", "premise"), [["r0", "b", f"a{PAIR}a"]])
    assert build_texts(table, TextSettings(pair=("premise", "hypothesis"))) == [f"a a{PAIR}b"]
    assert TextSettings(pair=("premise", "hypothesis")).columns == ("premise", "hypothesis")


@pytest.mark.parametrize(
    "text, message",
    [
        ({"pair": ("a",)}, "text.pair is .*; expected two columns"),
        ({"pair": ("a", "a")}, "expected two columns"),
        ({"pair": ("a", "b", "c")}, "For more texts per row use text.template"),
        ({"pair": ("a", "b"), "columns": ("a", "c")}, "set one of them"),
        ({"pair": ("a", "b"), "template": "{a} {b}"}, "text.pair and text.template both say"),
    ],
)
def test_pairs_that_cannot_be(text, message):
    with pytest.raises(UserError, match=message):
        CompetitionSettings("id", text=TextSettings(**text))


def test_typed_pairs():
    assert typed_rows(["a", "b", "c", "d"], ("x", "y")).texts == (f"a{PAIR}b", f"c{PAIR}d")
    assert typed_rows(["a", "b"], ("x", "y")).shown == ("a | b",)
    with pytest.raises(UserError, match="--text has 3 texts; expected two per row, x and y"):
        typed_rows(["a", "b", "c"], ("x", "y"))


def test_pairs_in_json_lines(tmp_path):
    from foldblend.submission.new_texts import read_rows

    competition = CompetitionSettings("id", text=TextSettings(pair=("x", "y")))
    path = tmp_path / "new.jsonl"
    path.write_text(json.dumps({"x": "a", "y": "b"}) + "\n")
    assert read_rows(path, competition).texts == (f"a{PAIR}b",)
    path.write_text(json.dumps({"text": "a"}) + "\n")
    with pytest.raises(UserError, match="expected an object with the texts x and y"):
        read_rows(path, competition)
