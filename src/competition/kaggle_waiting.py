"""competition/: before and after an upload: how many are left today, and when the score is there."""

import time
from collections.abc import Callable

from competition.kaggle_client import KaggleClient, KaggleSubmission, Limits
from competition.kaggle_errors import KaggleError

POLL_SECONDS = 3.0
"""Before the second look for a score; later looks come less often."""
SLOWEST_POLL_SECONDS = 15.0


def describe_limits(limits: Limits) -> str:
    """What is left, as a sentence. Raises ValueError where nothing more may be handed in now."""
    today = f"{limits.num_today} handed in today, {limits.num_total} in all"
    if limits.num_allowed_now:
        return f"{limits.num_allowed_now} left today; {today}"
    if not limits.num_today and not limits.num_total:
        return "look: Kaggle knows no team of yours in this competition; are its rules accepted?"
    if limits.limited_by_total:
        raise ValueError(f"the submission limit of the whole competition is reached: {today}. Run: --choose 2")
    minutes = 1440 - int(time.time() % 86400) // 60  # the day is UTC's
    when = f"{minutes // 60} h {minutes % 60} min"
    raise ValueError(f"the submission limit of today is reached: {today}. Run the same command in {when}")


def wait_for_score(
    client: KaggleClient, ref: int, minutes: float, show: Callable[[str], None]
) -> KaggleSubmission | None:
    """Ask until Kaggle has scored a submission or failed to; None where the minutes, or the user's patience, end first.

    Args: show: is told how long it has been. An answer that does not come is asked for again.
    """
    started, pause = time.monotonic(), POLL_SECONDS
    try:
        while (waited := time.monotonic() - started) < 60 * minutes:
            trouble = ""
            try:
                one = client.submission(ref)
                if one.status != "pending":
                    return one
            except KaggleError as error:
                trouble = f" (no answer just now: {error.kind})"
            show(f"waiting for the score: {waited:.0f} s{trouble}")
            time.sleep(pause)
            pause = min(1.3 * pause, SLOWEST_POLL_SECONDS)
    except KeyboardInterrupt:
        return None
    return None
