"""Settings as an older release wrote them into records and weights."""

import json

from settings.loading import default_settings_of
from settings.run import READ_BY, RunSettings


def with_defaults(stored: dict) -> dict:
    """Stored settings of a run, with the defaults of those that are younger; what else stands beside them stays."""
    if stored.get("learner") not in READ_BY:
        return stored
    defaults = default_settings_of(RunSettings(stored["learner"]))
    return merge(json.loads(json.dumps(defaults)), stored)


def merge(defaults: dict, values: dict) -> dict:
    """`values`, and of nested dicts what `defaults` has beside them."""
    merged = defaults | values
    for key in defaults.keys() & values.keys():
        if isinstance(defaults[key], dict) and isinstance(values[key], dict):
            merged[key] = merge(defaults[key], values[key])
    return merged
