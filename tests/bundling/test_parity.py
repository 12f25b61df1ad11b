import json

import numpy as np
import pytest

from foldblend.bundling.parity import (
    BOUNDS,
    FOLDER,
    N_ROWS,
    ExpectedRun,
    Parity,
    check_fold,
    choose_rows,
    compare,
    load_parity,
    parity_files,
    trained_in,
)
from foldblend.errors import UserError
from foldblend.features import Features

VERSIONS = {"torch": "2.11", "transformers": "5.17"}


def a_run(tables=None, device="1 x NVIDIA H200, bf16"):
    return ExpectedRun("net", np.zeros((1, 2, 3), np.float32) if tables is None else tables, device, VERSIONS)


def write(folder, parity):
    for name, data in parity_files(parity).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / FOLDER


def test_rows_of_all_lengths_are_chosen():
    texts = ["x" * n for n in np.random.default_rng(0).permutation(1000)]
    rows = choose_rows(texts)
    lengths = sorted(len(texts[row]) for row in rows)
    assert len(rows) == N_ROWS and (np.diff(rows) > 0).all()
    assert lengths[0] == 0 and lengths[-1] == 999 and np.diff(lengths).max() <= 17
    assert choose_rows(["b", "aa", ""]).tolist() == [0, 1, 2] and len(choose_rows([])) == 0


def test_files_come_back_as_they_were(tmp_path):
    features = Features(
        ("age",), np.array([[1.5], [np.nan]]), ("who", "where"), np.array([["a", ""], ["é", "c"]], object), 3
    )
    tables = np.array([[[1.25, -2, 0], [np.nan] * 3]], np.float32)
    parity = Parity(("one \ud800", ""), features, (a_run(tables), a_run(tables * 2, "x86_64 cpu")))
    folder = write(tmp_path, parity)
    back = load_parity(folder)
    assert back.texts == parity.texts and back.features.sha256() == features.sha256()
    for run, again in zip(parity.runs, back.runs, strict=True):
        assert np.array_equal(run.tables, again.tables, equal_nan=True)
        assert (again.name, again.device, again.versions) == (run.name, run.device, run.versions)
    assert load_parity(write(tmp_path / "plain", Parity(("a", "b"), None, (a_run(),)))).features is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"runs": []}', '{"runs": [{"shape": 3}], "texts": []}', "\ud800", None])
def test_damaged_files_are_one_message(tmp_path, damage):
    folder = write(tmp_path, Parity(("a", "b"), None, (a_run(),)))
    if damage is None:
        (folder / "expected.npz").write_bytes(b"PK")
    else:
        (folder / "rows.json").write_bytes(damage.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"no whole parity check|not a whole .npz|another program wrote it"):
        load_parity(folder)


def test_rows_that_a_fold_did_not_predict_do_not_count():
    expected = np.float32([[0.5, 0.5], [np.nan, np.nan]])
    found = compare(expected, np.float32([[0.25, 0.5], [1, 1]]))
    assert (found.n_rows, found.most, found.mean, found.worst, found.n_bad) == (1, 0.25, 0.125, 0, 0)
    assert compare(expected[1:], found=expected[1:]) is None
    bad = compare(expected[:1].repeat(3, 0), np.float32([[0, 0], [np.nan, 0], [0, np.inf]]))
    assert (bad.n_bad, bad.worst) == (2, 1)


@pytest.mark.parametrize("device", ["1 x H200, bf16", "2 x x86_64 cpu, fp32, fused layers", "x86_64 cpu"])
@pytest.mark.parametrize("now", ["", "fp32", "fp16", "bf16"])
def test_the_coarser_precision_bounds_the_distance(device, now):
    then = trained_in(device)
    most, _ = max(BOUNDS[then], BOUNDS[now])
    probs = np.full((64, 4), 0.5, np.float32)
    near, far = probs.copy(), probs.copy()
    near[3, 1] += 0.9 * most
    far[3, 1] += 1.1 * most
    run = a_run(device=device)
    line = check_fold(run, "fold 0", compare(probs, near), now, "1 x T4", VERSIONS)
    assert line.startswith("parity check, net, fold 0: 64 rows, probabilities at most")
    with pytest.raises(UserError, match=r"up to .* apart \(row 4\)"):
        check_fold(run, "fold 0", compare(probs, far), now, "1 x T4", VERSIONS)
    with pytest.raises(UserError, match="on average"):  # no single row is far, all of them together are
        check_fold(run, "fold 0", compare(probs, probs + np.float32(0.4 * most)), now, "1 x T4", VERSIONS)


@pytest.mark.parametrize(
    "then, now, versions, says",
    [
        ("bf16", "fp16", VERSIONS, r'fp16 after training in bf16; .* Set PRECISION = "fp32" in the notebook'),
        ("fp32", "fp16", VERSIONS, "fp16 after training in fp32"),
        ("bf16", "bf16", {**VERSIONS, "torch": "2.6"}, r"other versions of the libraries: torch 2.11 then, 2.6 here\."),
        ("fp16", "fp16", VERSIONS, r'the precision. Set PRECISION = "fp32"'),
        ("fp32", "fp32", VERSIONS, "other files of the pretrained model"),
    ],
)
def test_the_message_names_the_likely_cause_and_what_to_set(then, now, versions, says):
    bad = compare(np.float32([[0.5]]), np.float32([[np.nan]]))
    with pytest.raises(UserError, match=says) as caught:
        check_fold(a_run(device=f"1 x NVIDIA H200, {then}"), "fold 2", bad, now, "1 x Tesla T4", versions)
    first, found, cause = str(caught.value).splitlines()
    assert first == "The parity check failed: run net, fold 2 predicts something else than when it was trained."
    assert "1 of 1 rows get NaN or infinite values. Trained on 1 x NVIDIA H200" in found
    assert f"here it predicts on 1 x Tesla T4 in {now}" in found and 'PARITY = "no"' in cause


def test_what_is_stored_is_texts_and_predictions(tmp_path):
    rows = json.loads(parity_files(Parity(("a", "b"), None, (a_run(),)))[f"{FOLDER}/rows.json"])
    assert set(rows) == {"texts", "features", "runs"} and set(rows["runs"][0]) == {
        "name",
        "shape",
        "device",
        "versions",
    }
