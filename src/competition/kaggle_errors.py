"""competition/: what Kaggle and its client say when something fails, told with what to run next."""

import re

LATE = re.compile(r"deadline|has ended|is over|has closed|is closed|no longer accept|not accepting|not open")
LIMIT = re.compile(r"allowance|(submission|daily|team) limit|too many submissions|maximum number of submissions")
HANDING_IN = "CreateSubmission"
"""The request that makes a submission of what was uploaded."""
CREDENTIALS = (
    "Run: kaggle auth login; or take a token from https://www.kaggle.com/settings/api and put it into "
    "~/.kaggle/access_token (chmod 600) or KAGGLE_API_TOKEN"
)


class KaggleError(ValueError):
    """A call that failed. `arrived` is False where Kaggle surely did nothing, None where that is not known."""

    def __init__(self, message: str, kind: str, arrived: bool | None):
        super().__init__(message)
        self.kind = kind
        self.arrived = arrived


def explain(slug: str, kind: str, status: int | None, message: str, asked: str) -> KaggleError:
    """The error of a failed call.

    Args:   kind: `credentials`, `network`, `timeout`, `http`, `upload` or `client`.   status: of the HTTP answer.
            message: what was said, without secrets.
            asked: the last thing that Kaggle was asked; a lost answer to HANDING_IN leaves open whether it arrived.
    """
    if kind == "http":
        kind, sentence = _explain_answer(slug, status or 0, message)
    else:
        sentence = _explain_no_answer(kind, message)
    unanswered = kind in ("network", "timeout", "server", "client")
    return KaggleError(sentence, kind, None if unanswered and asked == HANDING_IN else False)


def _explain_no_answer(kind: str, message: str) -> str:
    if kind == "credentials":
        return f"no valid Kaggle credentials were found. {CREDENTIALS}"
    if kind == "upload":
        return f"the upload failed, nothing was handed in: {message or 'no reason given'}. Run the same command again"
    if kind == "timeout":
        return f"Kaggle did not answer in time ({message}). Run the same command again, or allow more: --timeout 300"
    if kind == "network":
        return f"Kaggle cannot be reached: {message}. Check the network and the proxy, then run the same command again"
    return f"the kaggle client failed: {message}. Run: pip install -U 'kaggle>=2.2.4' six, then the same command again"


def _explain_answer(slug: str, status: int, message: str) -> tuple[str, str]:
    """What an HTTP error means: its kind and a sentence."""
    page, lowered = f"https://www.kaggle.com/competitions/{slug}", message.lower()
    if status == 401:
        return "credentials", f"Kaggle refuses the credentials ({message}). {CREDENTIALS}"
    if status == 429:
        return "busy", f"Kaggle gets too many requests from here ({message}). Wait a minute and run the same again"
    if status >= 500:
        return "server", f"Kaggle has trouble of its own ({message}). Run the same command again later"
    if LATE.search(lowered):
        return "deadline", f"{slug} takes no submissions any more ({message}). Its dates: {page}"
    if LIMIT.search(lowered):
        return "limit", f"the submission limit is reached ({message}). It starts anew at midnight UTC; see {page}"
    if "rules" in lowered:
        return "rules", f"the rules of {slug} are not accepted yet ({message}). Accept them: {page}/rules"
    if status in (403, 404):
        return "slug", (
            f"Kaggle knows no competition {slug!r} that you take part in ({message}). Look at {page}: if it is not "
            f"there, put the right slug into files.kaggle; if it is, join it and accept its rules: {page}/rules"
        )
    return "refused", f"Kaggle refuses ({message}). See {page}/submissions"
