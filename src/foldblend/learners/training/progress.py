"""What a person sees while a fold trains: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from tqdm import tqdm

LINE_EVERY_SECONDS = 20


class Progress:
    """Counts rows of one fold. Only the first process shows anything."""

    def __init__(self, title: str, total_rows: int, done_rows: int, shown: bool):
        self.title, self.total, self.done, self.shown = title, total_rows, done_rows, shown
        self.started, self.started_at, self.last_line = time.monotonic(), done_rows, time.monotonic()
        self.bar = None
        if shown and sys.stderr.isatty():
            self.bar = tqdm(total=total_rows, initial=done_rows, desc=title, unit="row", dynamic_ncols=True)

    def advance(self, n_rows: int, state: str) -> None:
        """Count rows and show `state` (loss, last held-out score) beside rate and time left."""
        self.done += n_rows
        if self.bar is not None:
            self.bar.update(n_rows)
            self.bar.set_postfix_str(state, refresh=False)
        elif self.shown and time.monotonic() - self.last_line >= LINE_EVERY_SECONDS:
            self.last_line = time.monotonic()
            rate = (self.done - self.started_at) / (self.last_line - self.started)
            left = (self.total - self.done) / rate
            self.say(f"{self.done / self.total:4.0%}  {state}  {rate:.0f} rows/s  {_clock(left)} left")

    def say(self, text: str) -> None:
        """One lasting line."""
        if self.shown:
            announce(self.title, text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def announce(title: str, text: str) -> None:
    """One line on stderr that leaves a bar whole."""
    tqdm.write(f"{title}: {text}", file=sys.stderr)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
