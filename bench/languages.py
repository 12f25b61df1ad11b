"""TF-IDF and NB-SVM on languages whose marks tell words apart: macro-F1 with and without tfidf.strip_accents.

python bench/languages.py
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from foldblend.learners.nbsvm import NbsvmLearner
from foldblend.learners.table import Corpus, FoldRows
from foldblend.learners.tfidf import TfidfLearner
from foldblend.settings.run import RunSettings, TfidfSettings

LANGUAGES = {
    "French": (["péché pêche", "mûr mur", "salé sale"], "pain ville rue fleur chien des la sur", " "),
    "Vietnamese": (["mừng mưng", "buồn buôn", "giận gian"], "ghế xe hoa sách nắng trời lá quả", " "),
    "Turkish": (["oldu öldü", "acı açı", "kan kân"], "ev su gün yol çiçek şehir ağaç kitap", " "),
    "Hindi": (["दिन दीन", "सुख सूख", "कल काल"], "घर पानी फूल सड़क पेड़ किताब", " "),
    "Tamil": (["பல் பால்", "கல் கால்", "வில் வீல்"], "வீடு நீர் பூ சாலை மரம்", " "),
    "Thai": (["ข่าว ข้าว", "ไกล ใกล้", "เสือ เสื้อ"], "บ้าน น้ำ ดอกไม้ ถนน รถ หนังสือ", ""),
    "Japanese": (["ばか はか", "かぎ かき", "たんご たんこ"], "はな くるま がっこう みず あめ いえ き", ""),
    "Chinese": (["喜 恨", "爱 怒", "笑 哭"], "天 地 人 山 水 火 书 车", ""),
}
"""Two words per label that marks (in Chinese: letters) tell apart, words that say nothing, what is between words."""

HABITS = {
    "Spanish, accents left out in half of the texts": (["alegría dolor", "canción guerra", "corazón odio"], " "),
    "Arabic, vowel points in half of the texts": (["فَرَح حُزْن", "حُبّ كُرْه", "سَلَام غَضَب"], " "),
}
"""Words that differ anyway, written with and without their marks."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=600)
    flags = parser.parse_args()
    print("| texts | tfidf, stripped | tfidf | nbsvm, stripped | nbsvm |\n|---|---|---|---|---|")
    for name, (pairs, others, space) in LANGUAGES.items():
        show(name, draw(pairs, others.split(), space, flags.rows))
    for name, (pairs, space) in HABITS.items():
        show(name, draw(pairs, ["casa", "perro"] if "Span" in name else ["بيت", "ماء"], space, flags.rows, half=True))


def draw(pairs: list[str], others: list[str], space: str, n_rows: int, half: bool = False) -> Corpus:
    """Rows in which each label is there if the first word of its pair is; with `half`, half of them without marks."""
    from sklearn.feature_extraction.text import strip_accents_unicode

    rng = np.random.default_rng(0)
    labels, texts = rng.random((n_rows, len(pairs))) < 0.5, []
    for row in labels:
        words = [pair.split()[0 if has else 1] for pair, has in zip(pairs, row, strict=True)]
        text = space.join(rng.permutation([*words, *rng.choice(others, 4)]).tolist())
        texts.append(strip_accents_unicode(text) if half and rng.random() < 0.5 else text)
    return Corpus((*texts, texts[0]), labels, tuple("abc"), "multilabel")


def show(name: str, corpus: Corpus) -> None:
    """One line of the table: held-out macro-F1 of a third of the rows."""
    rows = np.arange(len(corpus.labels))
    scores = []
    for learner, build in (("tfidf", TfidfLearner), ("nbsvm", NbsvmLearner)):
        for stripped in (True, False):
            run = RunSettings(learner, tfidf=TfidfSettings(strip_accents=stripped))
            with tempfile.TemporaryDirectory() as folder:
                fold = FoldRows(0, rows[rows % 3 > 0], rows[rows % 3 == 0], Path(folder))
                scores.append(build(run, corpus).train_fold(fold).score["macro_f1"])
    print(f"| {name} | {' | '.join(f'{score:.3f}' for score in scores)} |", flush=True)


if __name__ == "__main__":
    main()
