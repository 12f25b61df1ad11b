"""The log of a teacher's answers: a line per answer, on the disk before the next step, read again by every start.

A kill loses no answer that was written, and at most the last line is cut off; that one is asked for again.
"""

import json
import os
import threading
from pathlib import Path

from foldblend.errors import UserError
from foldblend.files import read_bytes
from foldblend.teaching.answers import Reply

FIELDS = {"key": str, "answer": str, "finish": str, "tokens": list}


class AnswerLog:
    """The answers so far, by the key of the question. The caller holds a lock on the file."""

    def __init__(self, path: Path):
        """Read the log, and cut off a last line that a kill left unfinished.

        Raises: UserError: a line in it is damaged, or it cannot be read or written.
        """
        self.path = path
        self.replies: dict[str, Reply] = {}
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._read(read_bytes(path)) if path.exists() else 0
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            if os.fstat(self._file).st_size > whole:
                os.ftruncate(self._file, whole)
                os.fsync(self._file)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}). Make its folder writable") from error
        self._size = whole

    def _read(self, data: bytes) -> int:
        """Take in every whole line; returns how many bytes these are."""
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if any(not isinstance(entry.get(name), kind) for name, kind in FIELDS.items()):
                    raise ValueError("a field is missing")
                tokens_in, tokens_out = map(int, entry["tokens"])
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(
                    f"{self.path}: line {number} is damaged ({error}). Remove that line: the text is asked about again"
                ) from None
            self.replies[entry["key"]] = Reply(entry["answer"], entry["finish"], tokens_in, tokens_out)
        return len(data) - len(rest)

    def append(self, key: str, reply: Reply) -> None:
        """Write one answer; it is on the disk when this returns. Threads take turns."""
        tokens = [reply.tokens_in, reply.tokens_out]
        entry = {"key": key, "answer": reply.content, "finish": reply.finish, "tokens": tokens}
        line = json.dumps(entry, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            try:
                written = os.write(self._file, line)  # one write, so that a kill leaves whole lines and one cut at most
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError:  # the disk is full: half a line must not be the beginning of the next one
                os.ftruncate(self._file, self._size)
                raise
            self._size += len(line)
            self.replies[key] = reply

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
