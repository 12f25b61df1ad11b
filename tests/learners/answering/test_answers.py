"""Answers in tokens and their probabilities, against plain one-by-one reading of the same model."""

from itertools import chain, combinations

import numpy as np
import pytest
import torch
from tiny_chat import make_tokenizer, save_tiny_chat
from tiny_decoders import save_tiny_decoder
from transformers import AutoModelForCausalLM, GPTNeoConfig, Qwen3NextConfig

from foldblend.errors import UserError
from foldblend.learners.answering import answers as answers_module
from foldblend.learners.answering.answers import (
    AnswerModel,
    ListAnswers,
    Prompts,
    YesNoAnswers,
    align_left_padded,
    answer_lead,
    branch_logits,
    build_menu,
    find_windows,
    list_log_odds,
    log_odds,
    read_prompts,
    score_answers,
)
from foldblend.settings.nets import AnswerSettings, PromptSettings

NAMES = ("joy", "joy day", "anger", "joyful mad")
PROMPTS = ["today it was happy\nLabels:", "sad\nLabels:", "the plain gloomy furious mad text\nLabels:"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def lm(request, tmp_path_factory):
    """A random model that is likely to write labels and commas, whatever it has read."""
    folder = save_tiny_chat(tmp_path_factory.mktemp("tiny"), request.param)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size))
    with torch.no_grad():
        model.lm_head.bias[make_tokenizer()(", joy, sad, anger, mad, joyful, none, day<|im_end|>")["input_ids"]] += 5
        model.lm_head.weight.mul_(0.4)
    return model


def batch_of(tokenizer, texts=PROMPTS):
    rows = [tokenizer(text)["input_ids"] for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return rows, {"input_ids": ids, "attention_mask": mask}


def log_probs(lm, ids):
    """Next token's, float64 (V,), by a plain call of the model."""
    with torch.inference_mode():
        return lm(input_ids=torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)


def read(lm, context, piece):
    return sum(float(log_probs(lm, context + piece[:i])[token]) for i, token in enumerate(piece))


def score(lm, context, piece, others, ends):
    """Log-likelihood of a piece, times the share of what ends it where other pieces go on from it."""
    further = {other[len(piece)] for other in others if other[: len(piece)] == piece and other != piece}
    total = read(lm, context, piece)
    if further:
        after = log_probs(lm, context + piece)
        total += float(after[list(ends)].logsumexp(0) - after[[*ends, *further]].logsumexp(0))
    return total


def all_lists(lm, tokenizer, prompt, names):
    """{labels: probability} of every list of labels, by enumeration."""
    encode = lambda text: tokenizer(text)["input_ids"]  # noqa: E731
    eos, comma = tokenizer.eos_token_id, encode(",")[0]
    first = [encode(f" {name}") for name in (*names, "none")]
    later = [encode(f", {name}") for name in names]
    lists = {}
    for labels in chain.from_iterable(combinations(range(len(names)), k) for k in range(len(names) + 1)):
        chosen = labels[0] if labels else len(names)
        scores = np.array([score(lm, prompt, piece, first, (eos, comma)) for piece in first])
        total, context = scores[chosen] - np.logaddexp.reduce(scores), prompt + first[chosen]
        for i, label in enumerate(labels[:-1]):
            total += step(lm, context, later[label + 1 :], labels[i + 1] - label - 1, (eos, comma))
            context = context + later[labels[i + 1]]
        if labels and labels[-1] < len(names) - 1:
            total += step(lm, context, later[labels[-1] + 1 :], None, (eos, comma))
        lists[labels] = np.exp(total)
    return lists


def step(lm, context, allowed, chosen, ends):
    scores = [score(lm, context, piece, allowed, ends) for piece in allowed]
    scores.append(float(log_probs(lm, context)[ends[0]]))
    return scores[-1 if chosen is None else chosen] - np.logaddexp.reduce(scores)


@pytest.mark.parametrize(
    "names, histories", [(NAMES[:2], 1), (NAMES[:3], 2), (("anger", "joy", "joy day"), 2), (NAMES, 4)]
)
def test_labels_of_lists_have_the_probabilities_of_all_lists_together(lm, tokenizer, names, histories):
    rows, batch = batch_of(tokenizer)
    answers = ListAnswers(tokenizer, AnswerSettings(), names, " ", one_label=False)
    assert any(answers.opening().rivals), "no label begins another, so the test would not see it"
    with torch.inference_mode():
        got = AnswerModel(lm, answers, histories, multiclass=False).eval()(**batch).sigmoid().numpy()
    for row, prompt in enumerate(rows):
        lists = all_lists(lm, tokenizer, prompt, names)
        assert sum(lists.values()) == pytest.approx(1)
        expected = [sum(p for labels, p in lists.items() if j in labels) for j in range(len(names))]
        assert got[row] == pytest.approx(expected, abs=1e-5)


def test_fewer_histories_are_near_and_not_the_same(lm, tokenizer):
    _, batch = batch_of(tokenizer)
    answers = ListAnswers(tokenizer, AnswerSettings(), ("joy", "sad", "anger", "mad"), " ", one_label=False)
    with torch.inference_mode():
        exact, near = (AnswerModel(lm, answers, k, multiclass=False)(**batch).sigmoid() for k in (4, 1))
    assert torch.allclose(exact[:, :2], near[:, :2]) and not torch.allclose(exact[:, 3], near[:, 3], rtol=1e-4)
    assert (exact - near).abs().max() < 0.005


@pytest.mark.parametrize("kind", ["qwen3", "mistral", "gemma2", "gemma3"])
def test_other_families_are_read_alike(tokenizer, tmp_path, kind):
    """Among them attention written out, caps on logits, sliding windows, and a model that reads images too."""
    lm = AutoModelForCausalLM.from_pretrained(save_tiny_decoder(tmp_path, kind), dtype=torch.float32).eval()
    rows, batch = batch_of(tokenizer, PROMPTS[:2])
    answers = ListAnswers(tokenizer, AnswerSettings(), NAMES[:2], " ", one_label=False)
    with torch.inference_mode():
        got = AnswerModel(lm, answers, 1, multiclass=False)(**batch).sigmoid().numpy()
    for row, prompt in enumerate(rows):
        lists = all_lists(lm, tokenizer, prompt, NAMES[:2])
        assert got[row] == pytest.approx(
            [sum(p for labels, p in lists.items() if j in labels) for j in (0, 1)], abs=1e-5
        )


WINDOWED = [
    ("mistral", {}),  # one mask for all layers
    ("gemma2", {}),  # a mask per layer type, attention written out
    ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"]}),
    ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}),
]


@pytest.mark.parametrize("form", ["list", "yes_no"])
@pytest.mark.parametrize("kind, changes", WINDOWED)
def test_prompts_longer_than_a_sliding_window_are_read_as_the_model_reads_them(
    tokenizer, tmp_path, monkeypatch, kind, changes, form
):
    folder = save_tiny_decoder(tmp_path, kind, sliding_window=6, **changes)
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows, batch = batch_of(tokenizer, PROMPTS[:2])
    assert min(map(len, rows)) < 6 < max(map(len, rows))
    if form == "list":
        answers = ListAnswers(tokenizer, AnswerSettings(), NAMES[:2], " ", one_label=False)
    else:
        answers = YesNoAnswers(tokenizer, AnswerSettings("yes_no"), NAMES[:2], " ")
    model = AnswerModel(lm, answers, 1, multiclass=False)
    with torch.inference_mode():
        got = model(**batch).sigmoid().numpy()
    for row, prompt in enumerate(rows):
        if form == "list":
            lists = all_lists(lm, tokenizer, prompt, NAMES[:2])
            expected = [sum(p for labels, p in lists.items() if j in labels) for j in (0, 1)]
        else:
            asked = [prompt + tokenizer(f" {name}:")["input_ids"] for name in NAMES[:2]]
            odds = [
                read(lm, ids, tokenizer(" yes")["input_ids"]) - read(lm, ids, tokenizer(" no")["input_ids"])
                for ids in asked
            ]
            expected = 1 / (1 + np.exp(-np.array(odds)))
        assert got[row] == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr(answers_module, "find_windows", lambda config: {answers_module.ALL_LAYERS: None})
    with torch.inference_mode():
        assert np.abs(model(**batch).sigmoid().numpy() - got).max() > 1e-4, "the window left nothing out"


@pytest.mark.parametrize(
    "config",
    [
        GPTNeoConfig(attention_types=[[["global", "local"], 1]], num_layers=2),
        Qwen3NextConfig(num_hidden_layers=2, layer_types=["linear_attention", "full_attention"]),
    ],
)
def test_attention_that_branches_cannot_share_is_refused(config):
    with pytest.raises(UserError, match="generator cannot read .*layers of type (local|linear_attention)"):
        find_windows(config)


def test_one_label_is_a_softmax_over_what_is_written(lm, tokenizer):
    rows, batch = batch_of(tokenizer)
    answers = ListAnswers(tokenizer, AnswerSettings(), NAMES, " ", one_label=True)
    pieces = [tokenizer(f" {name}")["input_ids"] for name in NAMES]
    with torch.inference_mode():
        got = AnswerModel(lm, answers, 1, multiclass=True)(**batch).numpy()
    for row, prompt in enumerate(rows):
        scores = np.array([score(lm, prompt, piece, pieces, (tokenizer.eos_token_id,)) for piece in pieces])
        assert got[row] == pytest.approx(scores - np.logaddexp.reduce(scores), abs=1e-4)


@pytest.mark.parametrize("yes, no", [("yes", "no"), ("yes it was", "no day")])
def test_every_label_is_asked_as_if_alone(lm, tokenizer, yes, no):
    rows, batch = batch_of(tokenizer)
    answers = YesNoAnswers(tokenizer, AnswerSettings("yes_no", yes=yes, no=no), NAMES, " ")
    with torch.inference_mode():
        got = AnswerModel(lm, answers, 1, multiclass=False)(**batch).numpy()
        one_label = AnswerModel(lm, answers, 1, multiclass=True)(**batch)
    for row, prompt in enumerate(rows):
        for j, name in enumerate(NAMES):
            context = prompt + tokenizer(f" {name}:")["input_ids"]
            expected = [read(lm, context, tokenizer(f" {word}")["input_ids"]) for word in (yes, no)]
            assert got[row, j] == pytest.approx(expected[0] - expected[1], abs=1e-4)
    assert torch.allclose(one_label, torch.from_numpy(got).log_softmax(1), atol=1e-5)


def test_prompts_read_once_or_again_alone_or_together_say_the_same(lm, tokenizer):
    _, batch = batch_of(tokenizer)
    answers = ListAnswers(tokenizer, AnswerSettings(), NAMES, " ", one_label=False)
    with torch.inference_mode():
        prompts = align_left_padded(**batch)
        again = list_log_odds(lm, prompts, answers, 2)
        once = list_log_odds(lm, read_prompts(lm, prompts), answers, 2)
        alone = [
            list_log_odds(lm, read_prompts(lm, align_left_padded(**batch_of(tokenizer, [text])[1])), answers, 2)
            for text in PROMPTS
        ]
    assert torch.allclose(once, again, atol=1e-4) and torch.allclose(once, torch.cat(alone), atol=1e-4)


def test_written_out_attention_says_the_same(lm, tokenizer):
    _, batch = batch_of(tokenizer)
    model = AnswerModel(lm, ListAnswers(tokenizer, AnswerSettings(), NAMES, " ", one_label=False), 2, False)
    said = []
    for implementation in ("eager", "sdpa"):
        lm.set_attn_implementation(implementation)
        with torch.inference_mode():
            said.append(model(**batch))
    assert torch.allclose(*said, atol=1e-4)


def test_the_answer_alone_has_a_loss(lm, tokenizer):
    """As transformers' own loss with -100 on the prompt; no gradient comes from where a prompt's token is next."""
    rows, batch = batch_of(tokenizer)
    written = [tokenizer(f" {text}<|im_end|>")["input_ids"] for text in ("joy, anger", "none", "joyful")]
    width = max(map(len, written))
    answers = torch.tensor([ids + [7] * (width - len(ids)) for ids in written])
    mask = torch.tensor([[True] * len(ids) + [False] * (width - len(ids)) for ids in written])
    seen = []

    def watch(module, inputs, output):
        output.retain_grad()
        seen.append(output)

    hook = lm.lm_head.register_forward_hook(watch)
    got = score_answers(lm, align_left_padded(**batch), answers, mask)
    got.sum().backward()
    hook.remove()
    lm.zero_grad()
    for row, (prompt, ids) in enumerate(zip(rows, written)):
        labels = torch.tensor([[-100] * len(prompt) + ids])
        expected = lm(input_ids=torch.tensor([prompt + ids]), labels=labels).loss * len(ids)
        assert float(got[row].detach()) == pytest.approx(-float(expected.detach()), rel=1e-4)
    (logits,) = seen
    learned = logits.grad.abs().sum(-1) > 0
    assert logits.shape[1] == width + 1 and torch.equal(learned[:, :-1], mask) and not learned[:, -1].any()


def test_branches_see_the_prompt_and_themselves_alone(lm):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 200, (1, 9), generator=generator)
    prompts = Prompts(ids[:, :5], torch.ones(1, 5, dtype=torch.bool))
    visible = torch.block_diag(*[torch.ones(2, 2).tril()] * 2).bool().unsqueeze(0)
    with torch.inference_mode():
        got = branch_logits(lm, prompts, ids[:, 5:], torch.tensor([[0, 1, 0, 1]]), visible)[0]
        for start in (5, 7):
            alone = lm(input_ids=torch.cat([ids[:, :5], ids[:, start : start + 2]], 1)).logits[0, -3:]
            assert torch.allclose(got[[0, start - 4, start - 3]], alone, atol=1e-4)


def test_log_odds_are_finite_and_right():
    p = torch.tensor([0.0, 1e-30, 1e-3, 0.5, 0.9, 1.0], dtype=torch.float64)
    got = log_odds(p.log())
    assert torch.isfinite(got).all() and (got.diff() > 0).all()
    assert got[2:5].tolist() == pytest.approx(torch.logit(p[2:5]).tolist())
    assert torch.isfinite(log_odds(torch.tensor([1e-9, -1e300], dtype=torch.float64))).all()


def test_answers_are_spelled_in_one_way(tokenizer):
    answers = ListAnswers(tokenizer, AnswerSettings(), NAMES, " ", one_label=False)
    spelled = lambda *labels: tokenizer.decode(answers.whole(np.isin(range(4), labels)))  # noqa: E731
    assert spelled(0, 2, 3) == " joy, anger, joyful mad<|im_end|>"
    assert spelled() == " none<|im_end|>" and spelled(1) == " joy day<|im_end|>"


def test_an_answer_stands_off_its_prompt(tokenizer):
    for template, lead in (("{text}\nLabels:", " "), ("{text}\nLabels:\n", "")):
        assert answer_lead(tokenizer, PromptSettings(template=template), NAMES) == lead
    assert answer_lead(tokenizer, PromptSettings("chat"), NAMES) == ""
    with pytest.raises(ValueError, match="ends with the text"):
        answer_lead(tokenizer, PromptSettings(template="Labels: {labels} {text}"), NAMES)


def test_menus_tell_their_entries_apart():
    menu = build_menu([[1, 2, 3], [1, 2, 3, 4], [1, 2, 5]], ends=(9,))
    assert menu.shared == (1, 2) and menu.entries == ((3,), (3, 4), (5,)) and menu.rivals == [(4,), (), ()]
    with pytest.raises(ValueError, match="are the same tokens"):
        build_menu([[1, 2], [1, 2]], ends=(9,))
    with pytest.raises(ValueError, match="continues with what may follow another"):
        build_menu([[1], [1, 9]], ends=(9,))


@pytest.mark.parametrize(
    "names, settings, message",
    [
        (("joy", "anger, mad"), {}, "'anger, mad' holds the separator"),
        (("joy", "none"), {}, "'none' holds the separator, or is the answer for no label"),
        (("joy", "joy"), {}, "are the same tokens"),
        (("joy", "joy; anger"), {"separator": ";"}, "holds the separator"),
    ],
)
def test_labels_that_a_list_cannot_hold(tokenizer, names, settings, message):
    with pytest.raises(ValueError, match=message):
        ListAnswers(tokenizer, AnswerSettings(**settings), names, " ", one_label=False).opening()


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no end token"):
        ListAnswers(tokenizer, AnswerSettings(), NAMES, " ", one_label=False)
