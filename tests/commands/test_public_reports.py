"""Small competitions of public reports, each from its YAML to a checked CSV or to the line that says what to set."""

import os
import shutil
from pathlib import Path

import pytest

from foldblend.commands import blend, guard, make_folds, train
from foldblend.data.tables import load_tables
from foldblend.settings.loading import load_competition
from foldblend.submission.answers import lint_submission_file

CASES = Path(os.environ.get("FOLDBLEND_SHARED") or "not_given").resolve() / "cases"
NAMES = sorted(path.parent.name for path in CASES.glob("*/competition.yaml"))
REFUSED = {
    "encoding_mixed": "set files.invalid_bytes: cp1252",
    "encoding_mixed_as_advised": "Set files.encodings: {train.csv: utf-8}",
    "label_name_nfd": "Set labels.rename",
    "labels_soft": "labels.positive_from",
    "labels_unknown_minus_one": "labels.unknown",
    "labels_word_for_none": "set labels.empty: none",
    "metric_kappa": "set task: ordinal and list labels.names in this order",
    "no_header": "set files.columns: {train.csv: [id, text",
    "no_ids_in_test": "set files.ids: {test.csv: sample_order}",
    "sample_long": 'Set submission: {row_id: "{id}_{label}", column: p}',
    "zip_named_csv": "the file is a zip archive",
    "zip_named_csv_as_advised": "the file is a zip archive",
}


@pytest.mark.skipif(not NAMES, reason="the cases are not given: set $FOLDBLEND_SHARED to the folder that holds cases/")
@pytest.mark.parametrize("case", NAMES or ["none"])
def test_a_public_report_ends_in_a_csv_or_says_what_to_set(paths, case, capsys):
    shutil.copytree(CASES / case / "data", paths.data(case))
    shutil.copyfile(CASES / case / "competition.yaml", paths.configs / "competitions" / f"{case}.yaml")
    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\ntfidf: {char_ngrams: [0, 0], min_rows: 1}\n")
    flags = ["--competition", case]
    status = guard(lambda: make_folds.main(flags))
    if case in REFUSED:
        said = " ".join(capsys.readouterr().err.split())
        assert status == 2 and REFUSED[case] in said, said
        return
    assert status == 0, capsys.readouterr().err
    train.main([*flags, "--run", "words", "--fold", "all"])
    blend.main(flags)
    (path,) = paths.submissions(case).glob("*.csv")
    competition = load_competition(paths, case)
    lint_submission_file(path, competition, load_tables(competition, paths.data(case)))
