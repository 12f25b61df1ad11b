"""The table of learners. A new kind of learner is one new file and one line here."""

from importlib import import_module

from learners.interface import Corpus, Learner
from settings.run import RunSettings

LEARNERS = {
    "tfidf": "learners.tfidf:TfidfLearner",
    "nbsvm": "learners.nbsvm:NbsvmLearner",
    "embeddings": "learners.embeddings:EmbeddingsLearner",
    "encoder": "learners.encoder:EncoderLearner",
    "decoder": "learners.decoder:DecoderLearner",
    "generator": "learners.generator:GeneratorLearner",
}


def build_learner(run: RunSettings, corpus: Corpus) -> Learner:
    """The learner that `run.learner` names, imported only now so that TF-IDF never loads torch."""
    module, name = LEARNERS[run.learner].split(":")
    return getattr(import_module(module), name)(run, corpus)


def needs_gpu(learner: str) -> bool:
    """Whether a GPU saves hours."""
    return learner not in ("tfidf", "nbsvm")
