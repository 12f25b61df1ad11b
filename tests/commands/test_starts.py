"""Starting from another competition's run, and a model of all rows: by the commands, on tiny random models."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from foldblend.commands import blend, bundle, check, guard, predict, train, train_all
from foldblend.errors import UserError
from foldblend.files import sha256_file
from foldblend.ledger.oof import FOLD, run_folder
from foldblend.ledger.records import read_record

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
SHORT = ("--training.epochs", "1")


def write_other(paths, shared=()):
    """Competition `other` of 60 rows and two labels, `shared` among them, with texts that `toy` does not have."""
    rng = np.random.default_rng(5)
    words = "plain dull calm happy sad mad".split()
    texts = [f"other {' '.join(rng.choice(words, 9))} {chr(97 + row % 26)} {chr(97 + row // 26)}" for row in range(60)]
    texts[: len(shared)] = shared
    rows = [f"o{row},{text},{int('happy' in text)},{int('sad' in text)}" for row, text in enumerate(texts)]
    data = paths.data("other")
    data.mkdir(parents=True, exist_ok=True)
    (data / "train.csv").write_text("\n".join(["id,text,good,bad", *rows, ""]))
    (data / "test.csv").write_text("id,text\nx1,happy day\nx2,sad day\n")
    (data / "sample_submission.csv").write_text("id,good,bad\nx1,0,0\nx2,0,0\n")
    (paths.configs / "competitions" / "other.yaml").write_text("id_column: id\nn_folds: 2\n")


def train_other(*more):
    train.main(["--competition", "other", "--run", "tiny", *SHORT, *more])


def train_toy(*more):
    train.main(["--competition", "toy", "--run", "tiny", *SHORT, *more])


def refused(capsys, call, *more):
    capsys.readouterr()
    assert guard(lambda: call(*more)) == 2
    return " ".join(capsys.readouterr().err.split())


def encoder_of(paths, competition, run, fold):
    tensors = load_file(paths.checkpoints(competition, run) / fold / "weights.safetensors")
    return {name: value for name, value in tensors.items() if name.startswith("model.encoder.")}


def texts_of(paths, n):
    lines = (paths.data("toy") / "train.csv").read_text().splitlines()[1:]
    return [line.split(",")[1] for line in lines[:n]]


@pytest.fixture
def first_weights(monkeypatch):
    """The encoder's weights of every fold as they are before its first step."""
    from foldblend.learners.training import loop

    seen, prepare = [], loop.prepare

    def watch(accelerator, model, optimizer):
        seen.append({name: value.detach().numpy().copy() for name, value in model.state_dict().items()})
        return prepare(accelerator, model, optimizer)

    monkeypatch.setattr(loop, "prepare", watch)
    return seen


def test_a_fold_starts_from_the_mean_of_another_competitions_encoders(paths, toy_competition, first_weights, capsys):
    write_other(paths)
    train_other("--fold", "all")
    first_weights.clear()
    capsys.readouterr()
    train_toy("--fold", "0", "--model.start_from", "other/tiny", "--name", "later")
    shown = " ".join(capsys.readouterr().out.split())
    assert "starts from other/tiny, the mean of 2 folds; it learned from 60 rows, and none of them is held out" in shown
    folds = [encoder_of(paths, "other", "tiny", f"fold{k}") for k in (0, 1)]
    assert len(folds[0]) > 20
    for name, value in folds[0].items():
        mean = ((value.astype(np.float64) + folds[1][name]) / 2).astype(np.float32)
        assert np.array_equal(first_weights[0][name.removeprefix("model.")], mean)
    record = read_record(run_folder(paths, "toy", "later") / "fold0.json", FOLD)
    hashes = [sha256_file(paths.checkpoints("other", "tiny") / f"fold{k}" / "weights.safetensors") for k in (0, 1)]
    assert record["start"]["weights_sha256"] == dict(zip(("fold0", "fold1"), hashes, strict=True))
    assert record["start"]["compared_rows"] == 60 and record["start"]["shared_rows"] == 0
    assert record["settings"]["model"]["start_sha256"]


def test_another_start_is_another_run_and_the_same_bits_come_again(paths, toy_competition, capsys):
    write_other(paths)
    train_other("--fold", "all")
    one = ("--model.start_from", "other/tiny/fold0", "--name", "later")
    train_toy("--fold", "0", *one)
    said = refused(capsys, train_toy, "--fold", "1", "--model.start_from", "other/tiny/fold1", "--name", "later")
    assert "model.start_from was other/tiny/fold0, is now other/tiny/fold1 (fold0)" in said
    before = (run_folder(paths, "toy", "later") / "fold0.npz").read_bytes()
    train_toy("--fold", "0", *one, "--overwrite")
    assert (run_folder(paths, "toy", "later") / "fold0.npz").read_bytes() == before
    train_other("--fold", "all", "--seed", "9", "--name", "tiny", "--overwrite")  # the same name, other weights
    said = refused(capsys, train_toy, "--fold", "1", *one)
    assert "model.start_sha256 was" in said


def test_a_start_that_has_seen_held_out_rows_is_refused_until_they_are_left_out(paths, toy_competition, capsys):
    said_before = texts_of(paths, 4)
    write_other(paths, [said_before[0].upper() + "!", *said_before[1:]])  # with other case and punctuation
    train_other("--fold", "full")
    start = ("--model.start_from", "other/tiny/full", "--name", "later")
    said = refused(capsys, train_toy, "--fold", "all", *start)
    assert "other/tiny/full has seen 4 rows that fold" in said and "'r0'" in said
    command = "--competition other --run tiny --name tiny-without-toy --fold full --training.leave_out '[toy]'"
    assert command in said and "--model.start_from other/tiny-without-toy/full" in said
    assert not run_folder(paths, "toy", "later").exists()
    capsys.readouterr()
    train_other("--fold", "full", "--name", "tiny-without-toy", "--training.leave_out", "[toy]")
    assert "left out, as rows of toy say the same: 4 of 60 rows" in capsys.readouterr().out
    record = read_record(run_folder(paths, "other", "tiny-without-toy") / "full.json", FOLD)
    assert record["left_out"] == [0, 1, 2, 3]
    start = ("--model.start_from", "other/tiny-without-toy/full", "--name", "later")
    train_toy("--fold", "all", *start)
    assert "it learned from 56 rows" in " ".join(capsys.readouterr().out.split())


def test_only_the_folds_that_hold_out_what_was_seen_are_refused(paths, toy_competition, capsys):
    train_toy("--fold", "0")
    fold = np.loadtxt(paths.folds("toy"), delimiter=",", skiprows=1, usecols=1)
    write_other(paths, texts_of(paths, 1))
    train_other("--fold", "all")
    start = ("--model.start_from", "other/tiny", "--name", "later")
    seen, others = int(fold[0]), [str(k) for k in range(3) if k != fold[0]]
    said = refused(capsys, train_toy, "--fold", str(seen), *start)
    assert f"has seen 1 rows that fold {seen} holds out" in said
    train_toy("--fold", *others, *start)
    said = refused(capsys, train_toy, "--fold", "1", "--model.start_from", "toy/tiny/fold0", "--name", "x")
    assert "It is of this competition. Start from a run of another one" in said


@pytest.mark.parametrize(
    "start, words",
    [
        ("othr/tiny", "no competition othr; did you mean 'other'?"),
        ("other/tiny", "run tiny of other is not trained. Run: accelerate launch src/train.py --competition other"),
        ("other/tiny/fold7x", "no folder with config.json, and no run"),
        ("nothing", "no folder with config.json, and no run"),
        ("/", "expected COMPETITION/RUN"),
    ],
)
def test_a_start_that_is_not_there_is_refused_with_what_to_run(paths, toy_competition, capsys, start, words):
    write_other(paths)
    assert words in refused(capsys, train_toy, "--fold", "0", "--model.start_from", start)


def test_other_weights_than_those_of_the_record_are_refused(paths, toy_competition, capsys):
    write_other(paths)
    train_other("--fold", "0")
    assert "fold 1 is not trained" in refused(capsys, train_toy, "--fold", "0", "--model.start_from", "other/tiny")
    path = paths.checkpoints("other", "tiny") / "fold0" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    start = ("--model.start_from", "other/tiny/fold0")
    assert "is not the file that its fold's record" in refused(capsys, train_toy, "--fold", "0", *start)
    path.unlink()
    assert "is missing. Copy it here" in refused(capsys, train_toy, "--fold", "0", *start)


def test_a_model_of_all_rows_is_one_more_member_of_the_test_rows_mean(paths, toy_competition, tmp_path, capsys):
    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\n")
    train_toy("--fold", "all", "full")
    train.main(["--competition", "toy", "--run", "words", "--fold", "all"])
    capsys.readouterr()
    train_toy("--fold", "0", "full")
    assert "already trained: fold 0, full" in capsys.readouterr().out
    folder = run_folder(paths, "toy", "tiny")
    record = read_record(folder / "full.json", FOLD)
    assert record["rows"] == 0 and record["test_rows"] == 21 and not record["score"]
    blend.main(["--competition", "toy", "--strategy", "mean_probs"])
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "a test row's answer is the mean over 3 folds and, with the weight of one more fold, the model of all" in shown
    )
    assert (
        "its model of all rows predicts test rows only" in shown and "for words the mean of the folds is used" in shown
    )
    path = next(paths.submissions("toy").glob("*.json"))
    assert "oof/toy/tiny/full.npz" in json.loads(path.read_text())["inputs"]
    answer = tmp_path / "again.csv"
    predict.main(["--competition", "toy", "--input", str(paths.data("toy") / "test.csv"), "--answer", str(answer)])
    assert answer.read_bytes() == path.with_suffix(".csv").read_bytes()
    bundle.main(["--competition", "toy", "--no_wheels", "--owner", "someone"])
    dataset = next(paths.bundle("toy").glob("*/dataset"))
    assert (dataset / "oof/toy/tiny/full.json").is_file()
    assert (dataset / "checkpoints/toy/tiny/full/weights.safetensors").is_file()
    check.main(["--competition", "toy"])  # ends with a status if anything is wrong
    (folder / "full.npz").write_bytes(b"")
    with pytest.raises(UserError, match="1 files are not what their records say"):
        check.main(["--competition", "toy"])


def test_an_exported_encoder_is_an_ordinary_model_and_the_same_start(paths, toy_competition, first_weights, capsys):
    import torch
    from transformers import AutoModel, AutoTokenizer

    write_other(paths, texts_of(paths, 1))
    urls = ("--cleaning.urls", "true", "--cleaning.placeholder_tokens", "true")
    train_other("--fold", "all", "--training.leave_out", "[toy]", *urls)
    train_other("--export", "encoder")
    folder = paths.checkpoints("other", "tiny") / "encoder"
    assert "to start another run from it" in capsys.readouterr().out and (folder / "model.safetensors").is_file()
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        assert model(**tokenizer("a happy <URL> day", return_tensors="pt")).last_hidden_state.isfinite().all()
    weights = dict(model.state_dict())
    first_weights.clear()
    for number, start in enumerate(("other/tiny", str(folder))):
        train_toy("--fold", "0", "--model.start_from", start, "--name", f"later{number}", *urls)
    by_run, by_folder = first_weights
    names = [name for name in by_run if name.startswith("encoder.")]
    assert len(names) > 20 and all(np.array_equal(by_run[name], by_folder[name]) for name in names)
    assert all(np.array_equal(by_run[name], weights[name.removeprefix("encoder.")]) for name in names)
    assert "it learned from 59 rows" in " ".join(capsys.readouterr().out.split())  # by the note in the folder, too


def test_a_folder_says_what_it_has_seen_under_any_setting(paths, toy_competition, capsys):
    train_toy("--fold", "0")
    train_toy("--export", "encoder", "--fold", "0")
    folder = str(paths.checkpoints("toy", "tiny") / "encoder-fold0")
    for setting in ("--model.start_from", "--model.name"):
        said = refused(capsys, train_toy, "--fold", "1", setting, folder, "--name", "x")
        assert "rows that fold 1 holds out" in said and "It is of this competition" in said


@pytest.mark.parametrize("learner", ["tfidf", "nbsvm"])
def test_linear_learners_learn_all_rows_too(paths, toy_competition, capsys, learner):
    (paths.configs / "runs" / "words.yaml").write_text(f"learner: {learner}\n")
    train_all.main(["--competition", "toy", "--runs", "words", "--fold", "full"])
    shown = capsys.readouterr().out
    assert "no row held out" in (paths.checkpoints("toy", "words") / "full.log").read_text()
    assert "words" in shown and "full" in shown
    train.main(["--competition", "toy", "--run", "words", "--fold", "full", "--overwrite"])
    assert (run_folder(paths, "toy", "words") / "full.npz").exists()


def test_weights_cannot_be_chosen_by_rows_that_are_not_held_out(paths, toy_competition, capsys):
    said = refused(capsys, train_toy, "--fold", "full", "--training.selection", "best_score")
    assert "--fold full holds out no row, but training.selection best_score" in said


def test_a_model_of_all_rows_goes_on_after_a_kill_with_the_same_bits(paths, toy_competition):
    train_toy("--fold", "full")
    whole = (run_folder(paths, "toy", "tiny") / "full.npz").read_bytes()
    shutil.rmtree(run_folder(paths, "toy", "tiny"))  # the weights are there, so it goes on at its end
    train_toy("--fold", "full")
    assert (run_folder(paths, "toy", "tiny") / "full.npz").read_bytes() == whole


def blend_of(paths, *runs):
    blend.main(["--competition", "toy", "--runs", *runs, "--strategy", runs[0]])
    return next(paths.submissions("toy").glob("*.json"))


def test_the_mean_of_folds_predicts_as_one_model_and_says_how_well(
    paths, toy_competition, tmp_path, capsys, monkeypatch
):
    from foldblend.commands import inputs

    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\n")
    train_toy("--fold", "all", "--model.head_init", "label_names")
    blend_of(paths, "tiny")
    test, answer = str(paths.data("toy") / "test.csv"), tmp_path / "answer.csv"
    monkeypatch.setattr(inputs, "LEAST_CORRELATION", -1.0)
    capsys.readouterr()
    predict.main(["--competition", "toy", "--input", test, "--answer", str(answer), "--average_folds"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "one model of 3 against their mean, on 21 rows: correlation" in shown and "Its score is not known" in shown
    assert len(answer.read_text().splitlines()) == 22
    monkeypatch.setattr(inputs, "LEAST_CORRELATION", 2.0)
    said = refused(capsys, predict.main, ["--competition", "toy", "--input", test, "--average_folds"])
    assert "It cannot replace its folds" in said


def test_the_mean_of_equal_lora_folds_is_the_fold(tmp_path, tiny_bert):
    """Rank K r in place of r, with the same scale."""
    import torch

    from foldblend.learners.training.checkpoints import TrainState, load_weights, save_checkpoint
    from foldblend.learners.training.starts import write_average
    from foldblend.settings.nets import AdapterSettings, ModelSettings
    from foldblend.settings.run import RunSettings

    for rslora in (False, True):
        adapter = AdapterSettings(rank=2, alpha=8, rslora=rslora)
        run = RunSettings("decoder", model=ModelSettings(pooling="last"), adapter=adapter)
        folds, updates = [], []
        for fold in range(3):
            torch.manual_seed(fold)
            names = {"model.encoder.q.lora_A.default.weight": (2, 5), "model.encoder.q.lora_B.default.weight": (7, 2)}
            tensors = {name: torch.randn(shape) for name, shape in {**names, "model.head.weight": (3, 7)}.items()}
            folds.append(tmp_path / f"{rslora}" / f"fold{fold}")
            save_checkpoint(folds[-1] / "weights.safetensors", tensors, TrainState(), {"learner": "decoder"})
            a, b, head = tensors.values()
            updates.append((b @ a * 8 / (2**0.5 if rslora else 2), head))
        averaged = write_average(run, folds, tmp_path / f"{rslora}" / "mean")
        a, b, head = (load_weights(tmp_path / f"{rslora}" / "mean")[name] for name in [*names, "model.head.weight"])
        scale = averaged.adapter.alpha / (averaged.adapter.rank ** (0.5 if rslora else 1))
        assert averaged.adapter.rank == 6
        assert torch.allclose(b @ a * scale, sum(update for update, _ in updates) / 3, atol=1e-4)
        assert torch.allclose(head, sum(head for _, head in updates) / 3, atol=1e-6)


def test_what_has_no_mean_is_said_and_predicted_fold_by_fold(paths, toy_competition, capsys):
    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\n")
    train.main(["--competition", "toy", "--run", "words", "--fold", "all"])
    blend_of(paths, "words")
    capsys.readouterr()
    predict.main(["--competition", "toy", "--texts", "a happy day", "--average_folds"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "words: its folds are predicted one by one: a tfidf has no weights that could be averaged" in shown
