"""Settings as a fold's record stores them, and their defaults."""

SETTINGS = {"learner": "tfidf", "seed": 7, "tfidf": {"word_ngrams": (1, 2), "min_rows": 2}}
DEFAULTS = {"learner": "tfidf", "seed": 42, "tfidf": {"word_ngrams": (1, 2), "min_rows": 2}}
