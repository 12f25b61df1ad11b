"""competition/: the sample competition, from a fixed seed: tweets that no one wrote, with the faults of real ones.

Label rates, labels a row and their company follow SemEval-2018 task 1 E-c (Mohammad et al. 2018), which has the same 11
emotions. The only source of chance is `random.Random.random`, whose sequence Python promises to keep for a seed, and
nothing but products and comparisons is done to it, so the bytes are the same on every platform and version.
"""

import random
from dataclasses import dataclass

from competition.reading import table_bytes
from competition.sample_words import ALONE, CHATTER, EMOTIONS, HANDLES, TOPICS

SEED = 2024
N_TRAIN, N_TEST = 2000, 500
LABELS = tuple(EMOTIONS)

MOODS = (
    (0.32, {"anger": 0.94, "disgust": 0.95, "sadness": 0.26, "pessimism": 0.11, "fear": 0.08, "anticipation": 0.05}),
    (0.27, {"joy": 0.97, "optimism": 0.58, "love": 0.30, "surprise": 0.09, "anticipation": 0.13, "trust": 0.06}),
    (0.17, {"sadness": 0.97, "pessimism": 0.32, "disgust": 0.34, "anger": 0.32, "fear": 0.18, "love": 0.06}),
    (0.10, {"fear": 0.97, "anticipation": 0.32, "sadness": 0.34, "pessimism": 0.16, "anger": 0.16, "surprise": 0.10}),
    (0.11, {"optimism": 0.97, "joy": 0.76, "anticipation": 0.40, "trust": 0.26, "love": 0.18, "fear": 0.06}),
    (0.03, {}),
)
"""(share of tweets, chance of each label) a mood; emotions that go together share a mood."""

SAYS_IT, SLIPS = 0.80, 0.012
"""Chance that a label shows in the text, and that an annotator changes one label of a row."""
FRAMES = (
    "{}", "i am {}", "so {} right now", "honestly {}", "feeling {} about {topic}", "{topic} has me {}",
    "i'm {} and it shows", "still {} after {topic}", "day {n} of being {}", "a bit {} today", "why am i {}?",
    "{}, thanks to {topic}",
)  # fmt: skip
NEGATED = ("not {} at all", "no longer {}", "my sister is {} lol", "they say i should be {}", "was {} once, years ago")
"""Frames in which a feeling is named and not felt."""


@dataclass(frozen=True)
class Tweet:
    """One row before it has an id."""

    text: str
    labels: frozenset[str]


def sample_files() -> tuple[dict[str, bytes], str]:
    """The four files by name, and where they are from; the label columns of test.csv hold NONE."""
    draw = Draw(random.Random(SEED))
    tweets = _with_repeats(draw, [_tweet(draw) for _ in range(N_TRAIN + N_TEST)])
    ids = [f"T{number:05d}" for number in draw.shuffled(range(1, 90_000), len(tweets))]
    rows = [(name, tweet.text, *_zeros_and_ones(tweet)) for name, tweet in zip(ids, tweets, strict=True)]
    train, test = rows[:N_TRAIN], rows[N_TRAIN:]
    header, answer = ("ID", "Tweet", *LABELS), ("ID", *LABELS)
    files = {
        "train.csv": table_bytes(header, train),
        "test.csv": table_bytes(header, [(*row[:2], *["NONE"] * len(LABELS)) for row in test]),
        "sample_submission.csv": table_bytes(answer, [(row[0], *["0"] * len(LABELS)) for row in test]),
        "truth.csv": table_bytes(answer, [(row[0], *row[2:]) for row in test]),
    }
    return files, f"made up from seed {SEED}"


class Draw:
    """Chance in the few forms that are needed, all from `random()`."""

    def __init__(self, source: random.Random):
        self.random = source.random

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def below(self, n: int) -> int:
        return int(self.random() * n)

    def any(self, items):
        return items[self.below(len(items))]

    def early(self, items):
        """An item, the first ones far more often than the last: words have a long tail."""
        u = self.random()
        return items[int(u * u * u * len(items))]

    def shuffled(self, items, n: int) -> list:
        """n different items in random order."""
        items = list(items)
        for k in range(n):
            other = k + self.below(len(items) - k)
            items[k], items[other] = items[other], items[k]
        return items[:n]


def _tweet(draw: Draw) -> Tweet:
    labels = _labels(draw)
    if not labels and draw.chance(0.15):
        return Tweet(draw.any(ALONE), labels)
    said = [label for label in draw.shuffled(sorted(labels), len(labels)) if draw.chance(SAYS_IT)]
    parts = [_cue(draw, label) for label in said[:3]]
    if not parts or draw.chance(0.35):
        parts.append(draw.any(CHATTER).format())
    if draw.chance(0.30):
        other = draw.any([label for label in LABELS if label not in labels])
        parts.append(draw.any(NEGATED).format(draw.early(EMOTIONS[other].feelings)))
    text = _joined(draw, draw.shuffled(parts, len(parts)))
    return Tweet(_decorated(draw, text, said), _annotated(draw, labels))


def _labels(draw: Draw) -> frozenset[str]:
    """One mood, and then each of its labels by itself; at least its first."""
    chances = _mood(draw.random())
    felt = {label for label in LABELS if draw.chance(chances.get(label, 0.0))}
    return frozenset(felt or list(chances)[:1])


def _mood(u: float) -> dict[str, float]:
    """The mood whose share of the unit interval holds u."""
    for share, chances in MOODS[:-1]:
        u -= share
        if u < 0:
            return chances
    return MOODS[-1][1]


def _annotated(draw: Draw, labels: frozenset[str]) -> frozenset[str]:
    """What an annotator writes down: now and then one label more or less."""
    return labels ^ {label for label in LABELS if draw.chance(SLIPS)}


def _cue(draw: Draw, label: str) -> str:
    emotion = EMOTIONS[label]
    if draw.chance(0.45):
        return draw.early(emotion.events)
    frame = draw.early(FRAMES)
    return frame.format(draw.early(emotion.feelings), topic=draw.any(TOPICS), n=2 + draw.below(30))


def _joined(draw: Draw, parts: list[str]) -> str:
    text = parts[0]
    for part in parts[1:]:
        text += draw.early((". ", ", ", " ... ", "! ", " and ", " - ", "\n", ' "', " &amp; ")) + part
    text += '"' if text.count('"') % 2 else draw.early(("", "!", ".", "!!!", "..."))
    return text[0].upper() + text[1:] if draw.chance(0.5) else text


def _decorated(draw: Draw, text: str, said: list[str]) -> str:
    """Typos, shouting, mentions, hashtags, emoji and links."""
    if draw.chance(0.30):
        text = " ".join(_typo(draw, word) if draw.chance(0.12) else word for word in text.split(" "))
    if draw.chance(0.04):
        text = text.upper()
    if draw.chance(0.30):
        text = f"@{draw.any(HANDLES)} {text}"
    if said and draw.chance(0.30):
        text = f"{text} {draw.early(EMOTIONS[draw.any(said)].tags)}"
    elif draw.chance(0.10):
        text = f"{text} #{draw.any(TOPICS).split(' ')[-1]}"
    if draw.chance(0.30):
        moods = EMOTIONS[draw.any(said)] if said and draw.chance(0.85) else EMOTIONS[draw.any(LABELS)]
        text = f"{text} {draw.any(moods.emoji) * (1 + draw.below(3))}"
    return f"{text} {_link(draw)}" if draw.chance(0.12) else text


def _typo(draw: Draw, word: str) -> str:
    """One slip of the thumb in a longer word."""
    if len(word) < 5 or not word.isalpha():
        return word
    at = 1 + draw.below(len(word) - 2)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return draw.any((swapped, word[:at] + word[at + 1 :], word[:at] + word[at] * 3 + word[at + 1 :]))


def _link(draw: Draw) -> str:
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    return "https://t.co/" + "".join(draw.any(alphabet) for _ in range(10))


def _with_repeats(draw: Draw, tweets: list[Tweet]) -> list[Tweet]:
    """Some rows become copies of others, word for word or nearly so; a third of the copies was labelled anew."""
    for k in range(len(tweets)):
        if draw.chance(0.05):
            first = draw.any(tweets)
            text = first.text if draw.chance(0.5) else _nearly(draw, first.text)
            labels = _labels(draw) if draw.chance(0.15) else _annotated(draw, first.labels)
            tweets[k] = Tweet(text, labels)
    return tweets


def _nearly(draw: Draw, text: str) -> str:
    """Passed on, shouted, or sent again with another link."""
    return draw.any((f"RT @{draw.any(HANDLES)}: {text}", text.upper(), f"{text}!!", f"{text} {_link(draw)}"))


def _zeros_and_ones(tweet: Tweet) -> list[str]:
    return [str(int(label in tweet.labels)) for label in LABELS]
