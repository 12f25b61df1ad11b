import pytest

from foldblend.commands import train

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


def test_profile_shows_the_shares_and_trains_nothing(paths, toy_competition, capsys):
    small = ["--training.global_batch_size", "2", "--training.micro_batch_size", "2"]
    train.main(["--competition", "toy", "--run", "tiny", "--profile", *small])
    shown = capsys.readouterr().out
    assert "| backward |" in shown and "3 folds " in shown
    assert not list(paths.oof("toy").rglob("*.npz"))
    assert (paths.checkpoints("toy", "tiny") / "profile" / "trace.json.gz").exists()
    assert len(list(paths.tokens("toy").glob("*.npy"))) == 3


def test_plan_says_hours_memory_and_money_and_leaves_nothing_behind(paths, toy_competition, capsys):
    small = ["--training.global_batch_size", "2", "--fold", "0", "2"]
    train.main(["--competition", "toy", "--run", "tiny", "--plan", "--price_per_hour", "2.5", *small])
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[-5:]] == ["in", "a", "2", "memory", "money"]
    assert not list(paths.oof("toy").rglob("*.npz")) and not paths.checkpoints("toy", "tiny").exists()


def test_profile_of_a_learner_without_steps_is_refused(paths, toy_competition):
    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\n")
    with pytest.raises(ValueError, match="takes no training steps"):
        train.main(["--competition", "toy", "--run", "words", "--profile"])


def test_plan_of_a_learner_without_steps_trains_a_part(paths, toy_competition, capsys, monkeypatch):
    (paths.configs / "runs" / "words.yaml").write_text("learner: tfidf\n")
    monkeypatch.setattr(train, "PLANNED_ROWS", 40)
    train.main(["--competition", "toy", "--run", "words", "--plan"])
    shown = capsys.readouterr().out
    assert "of 60 training rows" in shown and "3 folds      about " in shown
    assert not list(paths.oof("toy").rglob("*.npz")) and not paths.checkpoints("toy", "words").exists()


@pytest.mark.parametrize(("rows", "batch"), [(30, 64), (30, 6), (9, 4)])
def test_plan_of_a_handful_of_rows(paths, toy_competition, capsys, rows, batch):
    """Fewer rows than a step has, and fewer steps than are timed."""
    table = paths.data("toy") / "train.csv"
    table.write_text("\n".join([*table.read_text().splitlines()[: rows + 1], ""]))
    flags = ["--training.global_batch_size", str(batch), "--training.epochs", "1"]
    train.main(["--competition", "toy", "--run", "tiny", "--plan", *flags])
    shown = capsys.readouterr().out
    assert "3 folds " in shown and "nan" not in shown and "inf" not in shown
