"""The sample competition, made from a fixed seed: tweets that nobody wrote, with the flaws of real ones.

Label rates, labels per row and which labels go together follow SemEval-2018 task 1 E-c (Mohammad et al. 2018), which
has the same 11 emotions. The only source of chance is `random.Random.random`, whose sequence Python promises to keep
for a seed, and only products and comparisons are made of it: the bytes are the same on every platform and version.
"""

import random
from dataclasses import dataclass

from foldblend.data.reading import table_bytes

# ---------- the words. Every list is ordered from often to rarely drawn.


@dataclass(frozen=True)
class Emotion:
    """How one emotion is put into words."""

    feelings: tuple[str, ...]
    events: tuple[str, ...]
    tags: tuple[str, ...]
    emoji: str


def _emotion(feelings: str, events: str, tags: str, emoji: str) -> Emotion:
    return Emotion(_items(feelings), _items(events), tuple(tags.split()), emoji)


def _items(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split("|"))


EMOTIONS = {
    "anger": _emotion(
        """angry | furious | so mad | fuming | livid | pissed off | annoyed | raging | outraged | irritated |
        seething | enraged | infuriated | cross | boiling inside | ready to scream | fed up to the teeth | irate |
        incensed | exasperated | wound up | hopping mad | bitter | provoked | at the end of my patience |
        aggravated""",
        """they charged me twice and hung up on me | some idiot just cut me off in traffic |
        he lied to my face again | how dare you talk to her like that |
        the landlord kept our deposit for nothing | stop calling me at 6 am | who parks across two spaces |
        the airline lost my bag and shrugged | my neighbour is drilling on a sunday |
        they cancelled the meeting after i drove two hours | i will never forgive that referee | shut up already |
        you had one job | our boss took credit for the whole thing | they keep blaming us for their mess |
        forty minutes on hold and then cut off | the printer ate my thesis and smirked | nobody even said sorry |
        i want to throw this laptop out of the window | the council fined me for my own driveway""",
        "#rage #fuming #angry #furious #wtf #enough #complaint",
        "😡🤬😤💢",
    ),
    "anticipation": _emotion(
        """waiting for it | counting the days | can't wait | excited to see what comes | ready for tomorrow |
        curious | on the edge of my seat | counting down | itching to start | eager | watching the clock |
        standing by | impatient | bracing myself | all set to go | expecting big news | looking ahead |
        in suspense | primed | on tenterhooks""",
        """only three more sleeps until the trip | tickets go on sale at noon | results come out on monday |
        the trailer drops tonight and my alarm is set | bags are packed by the door |
        refreshing the page every minute | tomorrow we find out who made the team |
        first day at the new place next week | the oven says twelve more minutes |
        the draw is tonight so fingers crossed | two weeks until the due date | our plane boards in an hour |
        the season finale is almost here | the scoreboard says one lap to go |
        somebody hinted at an announcement | the kettle is on and the chapter is waiting |
        the parcel is out for delivery""",
        "#countdown #soon #cantwait #almostthere #waiting #tomorrow",
        "⏳👀🔜🤞",
    ),
    "disgust": _emotion(
        """disgusted | sick of this | grossed out | appalled | revolted | nauseated | repulsed |
        ashamed of these people | put off | sickened | horrified by the filth | queasy | offended | creeped out |
        full of contempt | turned off | aghast | loathing every second | scandalised |
        allergic to this hypocrisy | repelled""",
        """there was a hair in my soup | he clips his nails on the train |
        the bathroom had not been cleaned in weeks | politicians laughing while people starve |
        what a vile thing to say | the milk came out in lumps | grown men mocking a child online |
        this whole company is rotten | that comment section is a sewer |
        someone sneezed straight into the buffet | the smell in this lift should be illegal |
        mould under the carpet again | they sold expired meat with a new label |
        such a filthy trick to play on pensioners | the hypocrisy stinks | cockroaches in the hotel shower |
        he wiped his nose on the menu | bribes everywhere you look""",
        "#gross #disgusting #ew #vile #shameful #yuck",
        "🤢🤮🙄😒",
    ),
    "fear": _emotion(
        """scared | afraid | terrified | anxious | worried sick | nervous | panicking | frightened | on edge |
        shaking | petrified | uneasy | spooked | dreading it | paranoid | alarmed | jittery | full of dread |
        startled at every noise | apprehensive | horrified | unable to breathe | freaked out | timid |
        scared stiff | haunted""",
        """someone was following me to the car | the turbulence will not stop | i heard steps in the attic |
        the doctor wants to see me in person | my heart races every time the phone rings |
        there is a spider on my pillow | what if i forget every word on stage | the sirens came closer all night |
        lights flickering and nobody home | the test is in the morning and my hands will not stay still |
        the storm took the roof next door | i keep checking the locks | the dog growls at an empty corner |
        they found a lump | the brakes felt soft on the hill | i woke from a nightmare at 3 am |
        the water is rising in our street""",
        "#scared #anxiety #nightmare #terror #panic #horror #nervous",
        "😱😨😰😬",
    ),
    "joy": _emotion(
        """happy | so happy | delighted | thrilled | over the moon | grinning | cheerful | laughing so hard |
        ecstatic | overjoyed | elated | buzzing | having a blast | glad | on cloud nine | dancing in the kitchen |
        jolly | giddy | tickled | beaming | blissful | radiant | merry | full of beans | smiling like a fool |
        exhilarated | chuffed""",
        """best day of my life | we won the cup | the baby laughed for the first time | i got the job |
        sunshine and pancakes in bed | my song came on and everybody danced | the whole family is home |
        that joke made my week | free cake at the office | our puppy discovered snow | it is finally friday |
        she said yes | my team came back from three down | i passed with flying colours | concert of the year |
        grandma beat us all at cards | a perfect afternoon at the lake | we sang until we had no voice left""",
        "#happy #joy #blessed #weekend #fun #smile #celebrate",
        "😂😄🎉😁",
    ),
    "love": _emotion(
        """in love | so in love with you | smitten | head over heels | crushing hard | adoring every bit of it |
        devoted | full of love | fond of this place | infatuated | missing you already | besotted | soft for him |
        attached | thankful for my people | enamoured | all heart | tender | warm inside | obsessed with her voice""",
        """you are my favourite person | she brought me soup when i was ill |
        ten years married and still holding hands | my cat sleeps on my chest every night |
        hugs from my little niece | he learnt my mother's recipe for me | i would cross an ocean for these kids |
        forever grateful for my best friend | goodnight kisses on the phone | he warmed my side of the bed |
        my grandad still writes her poems | family is everything to me | your smile is my whole morning |
        sending kisses to my sister | she kept every letter i wrote""",
        "#love #mylove #soulmate #family #crush #relationshipgoals",
        "💖😍🥰💕",
    ),
    "optimism": _emotion(
        """hopeful | optimistic | positive about this | confident it works out | looking up | encouraged |
        motivated | determined | inspired | ready to try again | upbeat | sure we can do it | believing |
        heartened | resolute | bullish | seeing the bright side | undefeated | full of plans | reassured |
        geared up to grow | fired up""",
        """tomorrow is a new day | every setback teaches you something |
        keep going, you are closer than you think | things are getting better bit by bit |
        small steps still move you forward | one door closes and another opens |
        we will rebuild and it will be stronger | good things come to those who keep at it |
        new month, new chances | the treatment is working | the sun always comes back |
        never give up on yourself | this year is ours | a fresh start in a new town | hard work pays in the end |
        there is light at the end of this tunnel | the garden will bloom again | better times ahead""",
        "#hope #positivity #nevergiveup #motivation #believe #progress",
        "💪🌈✨🙏",
    ),
    "pessimism": _emotion(
        """hopeless | doomed | giving up | expecting the worst | sure it will fail | pessimistic | resigned |
        jaded | past caring | cynical about it | defeated | out of ideas | disillusioned |
        convinced nothing changes | bleak | finished with trying | discouraged | without a way out | fatalistic |
        despondent""",
        """what is the point | nothing ever works out for me | it only gets worse from here |
        we are all going to lose | no one will read this anyway | the planet is cooked |
        there goes the last chance | another year, same misery | they will never fix this |
        i already know the answer is no | it was too good to last | why even bother |
        the economy is going off a cliff | every plan falls apart | this team will be relegated |
        good luck finding work now""",
        "#doomed #hopeless #whybother #pointless #overit",
        "😩😑👎🫠",
    ),
    "sadness": _emotion(
        """sad | heartbroken | so down | crying | lonely | depressed | miserable | gutted | in tears |
        devastated | low | broken | blue | empty inside | grieving | homesick | hurting | melancholy | sorrowful |
        numb | inconsolable | crushed | weeping | forlorn | dejected | mourning | glum | tearful""",
        """we buried my grandfather today | she left without saying goodbye | nobody came to my birthday |
        the old dog did not wake up | i still set the table for two | lost my job two weeks before christmas |
        my best friend moved across the world | they tore down our old school | i ate dinner alone again |
        his number is still in my phone | we missed the final by one point |
        she does not remember my name anymore | the shop my parents ran has closed |
        goodbye to the house i grew up in | it rained on the empty stands | i found her scarf behind the door |
        rest in peace, old friend""",
        "#sad #heartbroken #rip #depression #lonely #missyou #crying",
        "😢😭💔😞",
    ),
    "surprise": _emotion(
        """surprised | shocked | stunned | speechless | amazed | astonished | blown away | taken aback |
        in disbelief | gobsmacked | caught off guard | flabbergasted | dumbfounded | startled | bewildered |
        floored | thunderstruck""",
        """i did not see that coming | wait, what | who knew it could do that | plot twist of the century |
        they turned up at the door unannounced | out of nowhere he proposed | since when is she on television |
        the quiet one won everything | i opened the box and it was a kitten | my jaw is on the floor |
        turns out we are cousins | it snowed in may | the last number on my ticket matched""",
        "#omg #shocked #unexpected #plottwist #wow",
        "😮😲🤯😳",
    ),
    "trust": _emotion(
        """safe with them | in good hands | trusting the process | sure of her | counting on you |
        loyal to this crew | certain they will deliver | at ease with him | a believer in our coach |
        relying on my doctor | secure | confident in our team | assured | behind you all the way |
        comfortable leaving it to her | faithful""",
        """he has never once let me down | her word is as good as gold | i would hand them my house keys |
        the nurses know exactly what they do | she always keeps her promises | god has a plan for us |
        my mechanic showed me every part he changed | they paid back each cent as agreed |
        lean on us, we have got you | the captain stayed until everyone was off |
        twenty years with the same honest baker | our teacher keeps secrets safe""",
        "#trust #faith #loyal #honest #gotyourback",
        "🤝🫡🙏💯",
    ),
}

TOPICS = _items(
    """the bus | my exam | the new season | the game tonight | work | this weather | the election | the wedding |
    my phone | school | the movie | the interview | monday | the gym | my hair | the train home | the news |
    the concert | dinner | my flat | the match | the new album | moving day | the dentist | the holidays |
    my driving test | the update | lunch | the office party | this town | my brother's band | the queue |
    the vet | homework | the marathon | the garden | the neighbours | tax season | the playlist | the ferry"""
)

CHATTER = _items(
    """the shop opens at nine | just made some tea | on the train to town | which way to the library |
    rt if you agree | new photo on my page | reading the manual now | blue or green for the wall? |
    table for four at seven | does anyone have a charger | watching the rain | lunch is at noon | it is tuesday |
    my battery is at 40 percent | page 212 of the book | thread 1/3 | here is the link |
    posting this from my new account | chapter two is up | the meeting moved to room 5 |
    quick question for the group | still in the car | number 14 on the list | parking is free"""
)

ALONE = ("None", "NA", "null", "...", "ok", "¿?", "مرحبا", "今日は")
"""Whole tweets; the first three must be read as the texts they are."""

HANDLES = _items(
    """marla_k | tom92 | city_bus | its.ella | dj_orbit | coach_ray | nadia | fc_harbour | weatherdesk | old_sam |
    pixelpete | lunaaa | the_real_joe | mrs_green | quickpost | newsroom7"""
)


# ---------- the tweets.


SEED = 2024
N_TRAIN = 2000
N_DRAWN = (2500, 1500)
"""Rows drawn at a time, training rows first: the 500 test rows of versions up to 0.2 are still the first ones."""
LABELS = tuple(EMOTIONS)

MOODS = (
    (0.32, {"anger": 0.94, "disgust": 0.95, "sadness": 0.26, "pessimism": 0.11, "fear": 0.08, "anticipation": 0.05}),
    (0.27, {"joy": 0.97, "optimism": 0.58, "love": 0.30, "surprise": 0.09, "anticipation": 0.13, "trust": 0.06}),
    (0.17, {"sadness": 0.97, "pessimism": 0.32, "disgust": 0.34, "anger": 0.32, "fear": 0.18, "love": 0.06}),
    (0.10, {"fear": 0.97, "anticipation": 0.32, "sadness": 0.34, "pessimism": 0.16, "anger": 0.16, "surprise": 0.10}),
    (0.11, {"optimism": 0.97, "joy": 0.76, "anticipation": 0.40, "trust": 0.26, "love": 0.18, "fear": 0.06}),
    (0.03, {}),
)
"""Per mood: (share of tweets, chance of each label); emotions that go together share a mood."""

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
    tweets: list[Tweet] = []
    numbers: list[int] = []
    for n_rows in N_DRAWN:
        tweets += [_tweet(draw) for _ in range(n_rows)]
        _repeat_some(draw, tweets, len(tweets) - n_rows)
        taken = set(numbers)
        numbers += draw.shuffled([number for number in range(1, 90_000) if number not in taken], n_rows)
    ids = [f"T{number:05d}" for number in numbers]
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


def _repeat_some(draw: Draw, tweets: list[Tweet], start: int) -> None:
    """Some rows from `start` on become copies of any, word for word or nearly so; some copies are labelled again."""
    for k in range(start, len(tweets)):
        if draw.chance(0.05):
            first = draw.any(tweets)
            text = first.text if draw.chance(0.5) else _nearly(draw, first.text)
            labels = _labels(draw) if draw.chance(0.15) else _annotated(draw, first.labels)
            tweets[k] = Tweet(text, labels)


def _nearly(draw: Draw, text: str) -> str:
    """Passed on, shouted, or sent again with another link."""
    return draw.any((f"RT @{draw.any(HANDLES)}: {text}", text.upper(), f"{text}!!", f"{text} {_link(draw)}"))


def _zeros_and_ones(tweet: Tweet) -> list[str]:
    return [str(int(label in tweet.labels)) for label in LABELS]
