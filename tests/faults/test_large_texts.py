"""Texts of a megabyte, and of every script, walk from the tables to a checked submission."""

from foldblend.commands import blend, train

LONG = ("happy " * 180_000)[: 2**20 - 1].rstrip()
STRANGE = "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \U0001f469\u200d\U0001f469\u200d\U0001f467 \x0b\x7f \u0661\u0662"


def test_a_text_of_a_megabyte_and_one_of_every_kind_of_sign(paths, toy_competition):
    data = paths.data(toy_competition)
    for name in ("train.csv", "test.csv"):
        lines = (data / name).read_text(encoding="utf-8").splitlines()
        for position, said in ((1, LONG), (2, STRANGE)):
            row_id, text, labels = lines[position].split(",", 2)
            lines[position] = f"{row_id},{text} {said},{labels}"
        (data / name).write_text("\n".join([*lines, ""]), encoding="utf-8")
    train.main(["--competition", toy_competition, "--run", "tfidf"])
    train.main(["--competition", toy_competition, "--run", "tiny", "--model.max_length_tokens", "64"])
    blend.main(["--competition", toy_competition])
    (answer,) = paths.submissions(toy_competition).glob("*.csv")
    assert len(answer.read_text().splitlines()) == 22
