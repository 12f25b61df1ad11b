import csv
import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from trained_blend import blend_once, stored_test

from foldblend.commands import blend, guard, predict
from foldblend.learners import trained
from foldblend.learners.training.weights import WEIGHTS, checksum
from foldblend.ledger.records import read_record, write_record
from foldblend.settings.loading import open_job

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
NAMES = ("words", "ratios", "frozen", "tiny")


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


@pytest.fixture
def blended(paths, toy_competition, tiny_bert, kept):
    """Three linear runs and an encoder."""
    return blend_once(paths, kept, NAMES, bert=tiny_bert)


def arguments(*more):
    return ["--competition", "toy", *map(str, more)]


def refused(capsys, *more):
    """What the command says as it refuses; no traceback."""
    assert guard(lambda: predict.main(arguments(*more))) == 2
    return capsys.readouterr().err


def test_the_test_file_gives_the_stored_logits_and_the_same_submission(paths, blended, tmp_path):
    test = paths.data("toy") / "test.csv"
    job = open_job("predict.py", arguments("--input", test), predict.add_flags)
    _, runs = predict.load_recipe(job, read_record(blended))
    assert sorted(run.name for run in runs) == sorted(NAMES)
    for run in runs:
        scores = predict.predict_run(job, run, predict.gather_rows(job), None)
        for fold, table in enumerate(scores.folds):
            assert table == pytest.approx(stored_test(paths, run.name, fold), abs=1e-5)
    out = tmp_path / "again.csv"
    predict.main(arguments("--input", test, "--answer", out))
    assert out.read_bytes() == blended.with_suffix(".csv").read_bytes()


def test_neither_training_data_nor_predictions_nor_pretrained_weights_are_read(paths, blended, tmp_path, tiny_bert):
    """Renamed away, they are not missed; an encoder's own weights are all in its folds."""
    (paths.data("toy") / "train.csv").unlink()
    for path in paths.oof("toy").glob("*/*.npz"):
        path.unlink()
    shutil.rmtree(paths.oof("toy") / "frozen")
    text = "today it was happy"
    weights, aside = tiny_bert / "model.safetensors", tiny_bert / "aside"
    record = read_record(blended)
    record["runs"] = ["words", "tiny"]
    record["recipe"]["predictor"] = {"form": "probs", "kind": "multilabel", "coefs": [0.5, 0.5]}
    write_record(blended, record)
    weights.rename(aside)
    try:
        predict.main(arguments("--text", text, "--output", tmp_path / "out.jsonl"))
    finally:
        aside.rename(weights)
    assert json.loads((tmp_path / "out.jsonl").read_text())["text"] == text


def test_runs_without_weight_are_not_needed(paths, blended, capsys):
    record = read_record(blended)
    record["runs"] = ["elsewhere", "words"]
    record["recipe"]["predictor"] = {"form": "scores", "kind": "multilabel", "coefs": [0.0, 1.0]}
    write_record(blended, record)
    predict.main(arguments("--text", "a furious day"))
    shown = capsys.readouterr().out
    assert "words: fold 3 of 3" in shown and "elsewhere" not in shown and "  anger " in shown


def test_what_is_written_is_what_was_predicted(blended, tmp_path, capsys):
    """CSV, JSON lines and print agree, and a text's answer hangs on no other text."""
    texts = ["today it was happy", 'sad, "gloomy"\nfurious', "=1+1", ""]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)))
    for name in ("out.csv", "out.jsonl"):
        predict.main(arguments("--input", tmp_path / "in.jsonl", "--output", tmp_path / name))
    assert "warning: 1 empty texts are predicted as they are: row 4" in capsys.readouterr().out
    objects = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    rows = list(csv.reader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert rows[0] == ["id", "joy", "sadness", "anger", "labels"] and [one["text"] for one in objects] == texts
    for row, one in zip(rows[1:], objects, strict=True):
        assert row[0] == one["id"] and list(map(float, row[1:4])) == list(one["probs"].values())
        assert row[4] == "|".join(one["labels"])
    predict.main(arguments("--text", *texts[:2], "--output", tmp_path / "alone.jsonl"))
    alone = [json.loads(line) for line in (tmp_path / "alone.jsonl").read_text().splitlines()]
    for one, other in zip(objects, alone, strict=False):
        assert list(one["probs"].values()) == pytest.approx(list(other["probs"].values()), abs=1e-5)
        assert one["labels"] == other["labels"]
    capsys.readouterr()
    predict.main(arguments(f"--text={texts[0]}"))
    shown = capsys.readouterr().out
    assert f"joy {objects[0]['probs']['joy']:.3f} *" in shown and texts[0] in shown


def test_other_rows_than_the_sample_names_keep_their_order(paths, blended, tmp_path, capsys):
    (tmp_path / "new.csv").write_text("id,text\nz9,today it was sad\na1,happy\n")
    predict.main(arguments("--input", tmp_path / "new.csv", "--answer", tmp_path / "answer.csv"))
    lines = (tmp_path / "answer.csv").read_text().splitlines()
    assert lines[0] == "id,joy,sadness,anger" and [line.split(",")[0] for line in lines[1:]] == ["z9", "a1"]
    assert set("".join(line.split(",", 1)[1] for line in lines[1:])) <= set("01,")
    assert "has other rows; the answer is in the order of the texts" in capsys.readouterr().out


@pytest.mark.parametrize(
    "header, said",
    [
        ("id,joy,sadness,anger,fold", "column 'fold': expected only 'id'"),
        ("id,joy,sadness", "column 'anger' is missing"),
        ("id,joy,sadnes,anger", "column 'sadness' is missing; did you mean 'sadnes'?"),
    ],
)
def test_a_sample_submission_with_other_columns_is_refused(paths, blended, tmp_path, capsys, header, said):
    rows = [f"{name},{','.join('0' * header.count(','))}" for name in ("a1", "a2")]
    (tmp_path / "sample.csv").write_text("\n".join([header, *rows]) + "\n")
    (tmp_path / "new.csv").write_text("id,text\na1,happy\na2,sad\n")
    flags = ["--input", tmp_path / "new.csv", "--answer", tmp_path / "answer.csv", "--sample", tmp_path / "sample.csv"]
    assert said in refused(capsys, *flags)
    assert not (tmp_path / "answer.csv").exists()


def test_missing_weights_name_the_command(paths, blended, capsys):
    for fold in (0, 2):
        (paths.checkpoints("toy", "tiny") / f"fold{fold}" / WEIGHTS).unlink()
    said = refused(capsys, "--text", "x")
    assert f"checkpoints/toy/tiny: no {WEIGHTS} of fold 0, 2. Run: accelerate launch src/train.py" in said
    assert "--competition toy --run tiny --fold 0 2 --overwrite" in said and "src/blend.py" in said


def test_a_run_made_elsewhere_cannot_predict(paths, blended, capsys):
    folder = paths.oof("toy") / "notebook"
    folder.mkdir()
    for name, first, n in (("oof.csv", 0, 90), ("test.csv", 90, 21)):
        rows = [f"r{first + i},{i / 200},0.5,{0.9 - i / 200}" for i in range(n)]
        (folder / name).write_text("\n".join(["id,joy,sadness,anger", *rows, ""]))
    blend.main(arguments("--strategy", "cross_label_stack", "--runs", "notebook", *sorted(NAMES)))
    said = refused(capsys, "--text", "x")
    assert "oof/toy/notebook: its predictions were made elsewhere, so it cannot predict new texts" in said
    assert "--runs frozen ratios tiny words" in said


def flip_last_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-9])


def pickled(path):
    np.savez(path.with_suffix(".npz"), weights=np.array([{}], dtype=object))
    path.with_suffix(".npz").rename(path)


def swapped(path):
    shutil.copy(path.parents[1] / "fold1" / WEIGHTS, path)


@pytest.mark.parametrize("run", ["words", "tiny"])
@pytest.mark.parametrize(
    "harm, said",
    [
        (flip_last_bit, "not the weights that the fold was trained to (their sha256 is not the one in oof/)"),
        (cut_off, "is damaged"),
        (pickled, "is damaged"),
        (swapped, "is of another training than its record in oof/: fold_rows_sha256"),
    ],
)
def test_weights_that_are_not_the_folds_are_refused(paths, blended, capsys, run, harm, said):
    harm(paths.checkpoints("toy", run) / "fold0" / WEIGHTS)
    assert said in refused(capsys, "--text", "x")


def test_a_fold_trained_since_the_blend_is_refused(paths, blended, capsys):
    path = paths.oof("toy") / "words" / "fold1.json"
    write_record(path, {**read_record(path), "npz_sha256": "0" * 64})
    assert "oof/toy/words: fold 1 was trained again since the blend. Run: python src/blend.py" in refused(
        capsys, "--text", "x"
    )


def test_other_folds_and_other_settings_are_refused(paths, blended, capsys):
    assert "metric was macro_f1, is now micro_f1" in refused(capsys, "--text", "x", "--metric", "micro_f1")
    path = paths.folds("toy")
    path.write_bytes(path.read_bytes().replace(b",0,", b",1,", 1))
    assert "other folds than the blend was made on" in refused(capsys, "--text", "x")


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("in.csv", "id,text\na,b\na,c\n", "'a' is also in row 1"),
        ("in.csv", "id,txt\na,b\n", "column 'text' is missing; did you mean 'txt'?"),
        ("in.csv", "id,text\n", "a header and no rows"),
        ("in.jsonl", '{"text": "a"}\n{"txt": "a"}\n', "row 2 (line 2): expected an object with a `text`"),
        ("in.jsonl", '{"text": "a"\n', "row 1 (line 1): no JSON"),
        ("in.jsonl", '{"id": null, "text": "a"}\n{"id": NaN, "text": "b"}\n', "row 1 (line 1): 'id' is empty"),
        ("in.jsonl", '{"text": "\\ud800"}\n', "half a surrogate pair"),
        ("in.jsonl", '{"text": "a", "id": 1}\n{"text": "a"}\n', "1 of 2 rows have an id"),
        ("in.jsonl", "", "the file has no line"),
    ],
)
def test_bad_input_is_named(blended, tmp_path, capsys, name, content, said):
    (tmp_path / name).write_text(content)
    assert said in refused(capsys, "--input", tmp_path / name)


def test_what_was_asked_must_make_sense(blended, tmp_path, capsys):
    assert "either --input FILE or --text" in refused(capsys)
    assert "nowhere.csv does not exist" in refused(capsys, "--input", "nowhere.csv")
    assert "blend-0 does not exist" in refused(capsys, "--text", "x", "--from", "blend-0")
    assert "expected .csv or .jsonl" in refused(capsys, "--text", "x", "--output", tmp_path / "out.txt")
    assert "needs the rows' ids" in refused(capsys, "--text", "x", "--answer", tmp_path / "out.csv")
    assert not list(tmp_path.glob("out.*"))


def test_without_a_blend_the_command_that_makes_one_is_named(paths, toy_competition, capsys):
    assert "no blend in submissions/toy/. Run: python src/blend.py --competition toy" in refused(capsys, "--text", "x")


def test_outputs_do_not_replace_inputs_or_what_exists(paths, blended, tmp_path, capsys):
    source, there = paths.data("toy") / "test.csv", tmp_path / "there.csv"
    there.write_text("mine")
    before = source.read_bytes()
    for flags, message in (
        (["--output", source], "is the file of --input: it would be overwritten"),
        (["--answer", paths.data("toy") / "train.csv", "--overwrite"], "is a file of this project"),
        (["--output", tmp_path / "x.csv", "--answer", tmp_path / "x.csv"], "is the file of --output"),
        (["--output", there], "exists. Name another file, or add --overwrite"),
    ):
        assert message in refused(capsys, "--input", source, *flags)
    assert source.read_bytes() == before and there.read_text() == "mine" and not (tmp_path / "x.csv").exists()
    predict.main(arguments("--input", source, "--output", there, "--overwrite"))
    assert there.read_text().startswith("id,")


def test_weights_that_are_not_the_records_and_predictions_that_are_no_numbers_are_refused(
    paths, blended, capsys, monkeypatch
):
    path = next(paths.checkpoints("toy", "words").glob("fold1/weights.safetensors"))
    arrays = {
        name: each * np.float32(np.nan) if each.dtype.kind == "f" else each for name, each in load_file(path).items()
    }
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    save_file(arrays, path, {**metadata, "crc32": checksum(arrays)})
    assert "not the weights that the fold was trained to" in refused(capsys, "--text", "happy")
    monkeypatch.setattr(predict, "check_folds", lambda *_: None)  # as for records of before 0.3, which have no hash
    assert "holds NaN)" in refused(capsys, "--text", "happy")
    nothing = SimpleNamespace(predict_fold=lambda folder: np.full((1, 3), np.nan, np.float32))
    monkeypatch.setattr(trained, "build_learner", lambda *_: nothing)
    assert "predict NaN or infinite values for 1 of 1 texts, the first in row 1" in refused(capsys, "--text", "happy")
