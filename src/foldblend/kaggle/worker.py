"""The process in which Kaggle's own client runs, apart from ours.

Importing the client authenticates, prints, makes folders and may end the process; a call of it may wait for ever. Here
it can do all that: one JSON request per line comes in, one JSON reply per line goes out, with what the client printed.
Started by kaggle/client.py as `python -P -m foldblend.kaggle.worker TIMEOUT_SECONDS`.
"""

import contextlib
import io
import json
import os
import signal
import sys

PAGE_SIZE = 100
SMALLEST_PAGE = 20
"""What the server returns if it ignores PAGE_SIZE; a shorter page is the last."""
MOST_PAGES = 100
LAST = {"asked": ""}
"""The last thing that Kaggle was asked, as `CreateSubmission`."""


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing but replies goes out there
    api = None
    for line in sys.stdin:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                api = api or _sign_in(float(sys.argv[1]))
                request = json.loads(line)
                reply = {"value": CALLS[request.pop("call")](api, **request)}
            except SystemExit:
                reply = {"error": {"kind": "credentials", "status": None, "message": "", "asked": ""}}
            except Exception as error:  # whatever the client raises becomes a reply; nothing is lost
                reply = {"error": _describe(error)}
        replies.write(json.dumps({**reply, "said": said.getvalue()}) + "\n")
        replies.flush()


def _sign_in(timeout_seconds: float):
    """The client, ready to be called. Raises: SystemExit: it finds no credentials."""
    import requests

    send = requests.Session.send

    def send_with_limit(session, request, **options):  # the client sets none, and would wait for ever
        LAST["asked"] = request.url.rsplit("/", 1)[-1]
        return send(session, request, **{**options, "timeout": options.get("timeout") or timeout_seconds})

    requests.Session.send = send_with_limit
    find_target = requests.Session.get_redirect_target

    def find_checked_target(session, response):
        target = find_target(session, response)
        if target:
            _refuse_foreign(response.request.method, response.status_code, response.url, target)
        return target

    requests.Session.get_redirect_target = find_checked_target
    from kaggle.api.kaggle_api_extended import KaggleApi

    api = KaggleApi()
    api.authenticate()
    return api


KAGGLES = ("kaggle.com", "kaggleusercontent.com", "googleapis.com", "googleusercontent.com")
"""Where Kaggle keeps files: a download is sent on to one of these hosts or one below them."""


def _refuse_foreign(method: str, status: int, url: str, target: str) -> None:
    """Refuse to be sent on to a host that is not Kaggle's, or from https to http.

    A 307 or 308 sends the body of a request once more, and that may hold a token; so only the same host gets it.
    Raises: requests.InvalidURL.
    """
    from urllib.parse import urljoin, urlsplit

    import requests

    before, after = urlsplit(url), urlsplit(urljoin(url, target))
    host = after.hostname or ""
    is_same = (before.hostname, before.scheme) == (host, after.scheme)
    is_download = method in ("GET", "HEAD") or status not in (307, 308)
    is_kaggles = any(host == each or host.endswith(f".{each}") for each in KAGGLES)
    if not is_same and not (is_download and is_kaggles and after.scheme == "https"):
        raise requests.exceptions.InvalidURL(
            f"{before.hostname} sends the request on to {host or target[:80]!r}: refused"
        )


def _describe(error: Exception) -> dict:
    import requests

    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    message = f"{type(error).__name__}: {error}"
    if isinstance(error, requests.HTTPError):
        kind, message = "http", f"{status}: {error}"
    elif isinstance(error, requests.Timeout | TimeoutError):
        kind = "timeout"
    elif isinstance(error, requests.RequestException | ConnectionError):
        kind, message = "network", _innermost(error)
    elif isinstance(error, json.JSONDecodeError):
        kind, message = "network", "the answer is not JSON; is there a proxy or a login page in between?"
    else:
        kind = "client"
    return {"kind": kind, "status": status, "message": message, "asked": LAST["asked"]}


def _innermost(error: BaseException) -> str:
    """The cause below all wrapping, as `ConnectionRefusedError: [Errno 111] Connection refused`."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return f"{type(error).__name__}: {error}"


def _limits(api, slug: str) -> dict:
    limits = api.competition_get_submission_limits(slug)
    names = ("num_today", "num_total", "num_allowed_now", "limited_by_total")
    return {name: getattr(limits, name) for name in names}


def _submit(api, slug: str, path: str, message: str) -> dict:
    answer = api.competition_submit(path, message, slug, quiet=True)
    failed = answer.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE
    return {"message": answer.message, "ref": answer.ref, "uploaded": not failed}


def _list(api, slug: str) -> list[dict]:
    """All pages; the listing does not say how many there are, so a short one or one without anything new ends it."""
    found = {}
    for page in range(1, MOST_PAGES + 1):
        listed = [_plain(one) for one in api.competition_submissions(slug, page_number=page, page_size=PAGE_SIZE) or []]
        fresh = {one["ref"]: one for one in listed if one["ref"] not in found}
        found |= fresh
        if len(fresh) < SMALLEST_PAGE:
            break
    return list(found.values())


def _get(api, slug: str, ref: int) -> dict:
    from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

    request = ApiGetSubmissionRequest()
    request.ref = ref
    with api.build_kaggle_client() as client:
        return _plain(client.competitions.competition_api_client.get_submission(request))


def _download(api, slug: str, folder: str) -> list[str]:
    api.competition_download_files(slug, path=folder, force=True, quiet=True)
    return sorted(os.listdir(folder))


def _push_dataset(api, slug: str, folder: str, note: str) -> dict:
    """A new dataset by the folder's metadata, or a new version if it exists."""
    with open(os.path.join(folder, "dataset-metadata.json"), encoding="utf-8") as file:
        ref = json.load(file)["id"]
    options = {"quiet": True, "convert_to_csv": False, "dir_mode": "zip"}
    if _refusal(lambda: api.dataset_status(ref))[1]:
        answer, refused = _refusal(lambda: api.dataset_create_new(folder, public=False, **options))
    else:
        answer, refused = _refusal(lambda: api.dataset_create_version(folder, note, **options))
    return {"url": answer.url, "error": answer.error or "", "ref": ref} if answer else {"error": refused}


def _dataset_status(api, slug: str, ref: str) -> str:
    """`ready` once its files can be mounted."""
    return str(_refusal(lambda: api.dataset_status(ref))[0] or "")


def _push_notebook(api, slug: str, folder: str) -> dict:
    """A new version of the notebook; sources that Kaggle does not know are an error."""
    answer, refused = _refusal(lambda: api.kernels_push(folder))
    if not answer:
        return {"error": refused}
    kinds = ("dataset", "competition", "kernel", "model")
    unknown = [each for kind in kinds for each in getattr(answer, f"invalid_{kind}_sources") or []]
    error = answer.error or (f"it knows no {', '.join(unknown)}" if unknown else "")
    return {"url": answer.url, "error": error}


def _refusal(call) -> tuple:
    """(answer, "") of a call, or (None, what was said) if Kaggle refuses it; other failures are raised."""
    import requests

    try:
        return call(), ""
    except requests.HTTPError as error:
        if error.response is None or error.response.status_code not in (400, 403, 404, 409, 422):
            raise
        return None, str(error)


def _plain(one) -> dict:
    """One submission as JSON can hold it."""
    return {
        "ref": one.ref,
        "date": one.date.strftime("%Y-%m-%dT%H:%M:%SZ") if one.date else "",
        "file_name": one.file_name or "",
        "description": one.description or "",
        "status": one.status.name.lower(),
        "public_score": one.public_score or "",
        "private_score": one.private_score or "",
        "error_description": one.error_description or "",
        "total_bytes": one.total_bytes or 0,
    }


CALLS = {
    "limits": _limits,
    "submit": _submit,
    "list": _list,
    "get": _get,
    "download": _download,
    "push_dataset": _push_dataset,
    "dataset_status": _dataset_status,
    "push_notebook": _push_notebook,
}

if __name__ == "__main__":
    main()
