import emoji
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from foldblend.data.texts import clean_text, clean_texts
from foldblend.settings.run import CleaningSettings, RunSettings

ALL = CleaningSettings(urls=True, users=True, hashtags=True, emoji_language="it")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("@anna 😀 #felice https://t.co/x", "<USER> faccina con un gran sorriso <HASHTAG> felice <URL>"),
        ("vedi http://a.b/c?d=1#e, poi", "vedi <URL> poi"),
        ("ciao😀mondo", "ciao faccina con un gran sorriso mondo"),
        ("❤️❤", "cuore rosso cuore rosso"),
        ("👍🏽", "pollice in su carnagione olivastra"),
        ("a  b", "a  b"),
        ("https:// @ # perché", "https:// @ # perché"),
        ("a@b.it #1 #È_vero!", "a<USER>.it <HASHTAG> 1 <HASHTAG> È_vero!"),
    ],
)
def test_recipe_d(text, expected):
    assert clean_texts([text], ALL) == [expected]


def test_each_part_is_switched_by_itself():
    text = "@a #b https://c 😀"
    assert clean_texts([text], CleaningSettings()) == [text]
    assert clean_texts([text], CleaningSettings(users=True)) == ["<USER> #b https://c 😀"]
    assert clean_texts([text], CleaningSettings(hashtags=True)) == ["@a <HASHTAG> b https://c 😀"]
    assert clean_texts([text], CleaningSettings(urls=True)) == ["@a #b <URL> 😀"]
    assert clean_texts([text], CleaningSettings(emoji_language="en")) == ["@a #b https://c grinning face"]


def test_every_language_names_every_emoji():
    """The type of the setting lists what the package knows, and no emoji is left in any of them."""
    known = CleaningSettings.__dataclass_fields__["emoji_language"].type.__args__
    assert set(known) == {"", *emoji.LANGUAGES}
    every = "".join(emoji.EMOJI_DATA)
    for language in emoji.LANGUAGES:
        (cleaned,) = clean_texts([every], CleaningSettings(emoji_language=language))
        assert not emoji.emoji_count(cleaned) and ":" not in cleaned


PIECES = ["https://", "http://x", "t.co", "@", "#", "a", "é_1", " ", "\n", "<URL>", "<USER>", "<HASHTAG>", "\0", ":",
          "_", "😀", "❤", "\ufe0f", "\u200d", "👍", "🏽", "#️⃣", "🇮", "🇹", "👩‍👩‍👧", "©"]  # fmt: skip
FLAGS = st.builds(
    CleaningSettings, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["", "it", "en", "ja", "de"])
)


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.text(max_size=12)), FLAGS)
def test_cleaning_twice_changes_nothing_and_nothing_becomes_empty(text, cleaning):
    (once,) = clean_texts([text], cleaning)
    assert clean_text(once, cleaning) == once
    assert bool(once.strip()) == bool(text.strip()) or "\0" in text


@pytest.mark.parametrize(
    "learner, changed, message",
    [
        ("encoder", {"placeholder_tokens": True}, "placeholder_tokens is set, but no placeholder is written"),
        ("tfidf", {"urls": True, "placeholder_tokens": True}, "learner tfidf has no tokenizer"),
    ],
)
def test_settings_without_effect_are_refused(learner, changed, message):
    with pytest.raises(ValueError, match=message):
        RunSettings(learner, cleaning=CleaningSettings(**changed))


def test_placeholders_are_what_is_written():
    assert CleaningSettings(urls=True, hashtags=True).placeholders == ("<URL>", "<HASHTAG>")
    assert ALL.placeholders == ("<URL>", "<USER>", "<HASHTAG>")
