"""competition/: a dataset and the notebook that reads it, uploaded through Kaggle's client."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from competition.kaggle_client import KaggleClient
from competition.kaggle_secrets import hide_secrets

POLL_SECONDS = 5.0
READY_MINUTES = 30
"""Kaggle unpacks a dataset before it can be mounted."""


def default_owner() -> str:
    """The Kaggle name of the user's credentials; empty where they hold none, as tokens do."""
    if os.environ.get("KAGGLE_USERNAME"):
        return os.environ["KAGGLE_USERNAME"]
    path = Path(os.environ.get("KAGGLE_CONFIG_DIR") or Path.home() / ".kaggle") / "kaggle.json"
    if not path.is_file():
        return ""
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("username", ""))
    except (ValueError, AttributeError):
        return ""


def push(dataset: Path, notebook: Path, note: str, show: Callable[[str], None], pause: float = POLL_SECONDS) -> None:
    """Upload the dataset, wait until it can be mounted, then upload the notebook, which Kaggle runs at once.

    Args:   dataset, notebook: folders with their metadata.   note: of the dataset's version.   pause: between looks.
    Raises: ValueError: Kaggle refuses, or is not done in READY_MINUTES; nothing after that was uploaded.
    """
    slug = json.loads((notebook / "kernel-metadata.json").read_text(encoding="utf-8"))["competition_sources"][0]
    with KaggleClient(slug) as client:
        show(f"uploading {dataset.parent.name}/dataset")
        made = _accepted("dataset", client.push_dataset(dataset, note))
        show(f"dataset: {made['url']}")
        _wait_until_ready(client, made["ref"], show, pause)
        made = _accepted("notebook", client.push_notebook(notebook))
        show(f"notebook: {made['url']}")


def _accepted(what: str, answer: dict) -> dict:
    if answer["error"]:
        raise ValueError(f"Kaggle refuses the {what}: {hide_secrets(answer['error'])}")
    return answer


def _wait_until_ready(client: KaggleClient, ref: str, show: Callable[[str], None], pause: float) -> None:
    started = time.monotonic()
    while (status := client.dataset_status(ref)) != "ready":
        waited = time.monotonic() - started
        if status in ("failed", "deleted") or waited > 60 * READY_MINUTES:
            raise ValueError(
                f"dataset {ref} is {status or 'unknown'} after {waited:.0f} s; the notebook was not pushed"
            )
        show(f"waiting for the dataset: {status or 'not there yet'}")
        time.sleep(pause)
