"""Ctrl-C under `accelerate launch` ends the launcher before it prints a traceback of its own."""

import os
import signal
import sys
import threading
from pathlib import Path


def end_launcher_on_ctrl_c() -> None:
    """From now on Ctrl-C ends the `accelerate launch` that started this process by SIGTERM, which prints nothing.

    It waits for us in Popen.wait, which goes on for 0.25 s after Ctrl-C and then raises KeyboardInterrupt; a machine
    with no core free for so long shows the traceback after all.

    Without such a launcher nothing changes; torchrun, with several processes, ends its workers in its own way. The
    training itself saves and leaves as ever (Interruption).
    """
    launcher = os.getppid()
    if "TORCHELASTIC_RUN_ID" in os.environ or not _is_accelerate(launcher):
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python's own handlers run between two bytecodes, which may be seconds apart; this is written at once
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    threading.Thread(target=_end, args=(reading, launcher), daemon=True).start()


def _is_accelerate(pid: int) -> bool:
    """Whether a process is `accelerate launch`; only Linux shows it."""
    if sys.platform != "linux":
        return False
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return b"launch" in words and any(word.endswith(b"accelerate") for word in words)


def _end(reading: int, launcher: int) -> None:
    while os.read(reading, 1) != bytes([signal.SIGINT]):
        pass
    if os.getppid() == launcher:
        os.kill(launcher, signal.SIGTERM)
