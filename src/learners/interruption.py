"""Ctrl-C and SIGTERM ask for a stop; the training loop saves itself at its next step and leaves."""

import signal


class Interruption:
    """As a context: remembers the first signal instead of dying by it. A second Ctrl-C stops at once."""

    def __enter__(self):
        self.signal_number = 0
        self.before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _remember(self, signal_number, _frame):
        if self.signal_number == signal.SIGINT == signal_number:
            raise KeyboardInterrupt
        self.signal_number = signal_number
