"""Jobs are shell lines here: what a queue does with processes that end well, die, refuse, or are stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from foldblend.console import Screen
from foldblend.queueing.machines import Slot
from foldblend.queueing.queue import FoldJob, Queue

SRC = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("foldblend.queueing.queue.POLL_EVERY_SECONDS", 0.01)
    monkeypatch.setattr("foldblend.queueing.queue.AGAIN_AFTER_SECONDS", 0.05)


@pytest.fixture
def job(tmp_path):
    """A job of a shell line; `$try` counts its starts, `note WORD` notes, `wait_for PATTERN N` waits for notes."""
    (tmp_path / "lib.sh").write_text(
        f'note() {{ echo "$1" >>{tmp_path}/notes; }}\n'
        f'wait_for() {{ until [ "$(grep -c -e "$1" {tmp_path}/notes)" -ge "$2" ]; do sleep 0.02; done; }}\n'
        f'echo >>{tmp_path}/tries.$1; try=$(grep -c "" {tmp_path}/tries.$1)\n'
    )

    def make(line, run="a", fold=0, wants_gpu=False):
        command = ("sh", "-c", f". {tmp_path}/lib.sh\n{line}", "sh", f"{run}{fold}")
        return FoldJob(run, fold, command, f"train {run} {fold}", tmp_path / run / f"fold{fold}.log", wants_gpu)

    return make


def notes(tmp_path):
    path = tmp_path / "notes"
    return path.read_text().split() if path.exists() else []


def run(jobs, slots=1, attempts=3):
    slots = [Slot(None)] * slots if isinstance(slots, int) else slots
    queue = Queue(jobs, slots, 1, attempts, Screen())
    stopped_by = queue.run()
    return queue, stopped_by


def states(queue):
    return [ticket.state for ticket in queue.tickets]


def test_all_jobs_in_order_and_as_many_side_by_side_as_slots(job, tmp_path, capsys):
    """Job 0 ends only when job 1 runs beside it."""
    jobs = [job(f"note +{fold}; wait_for '+1' 1; sleep 0.05; note -{fold}", fold=fold) for fold in range(5)]
    queue, stopped_by = run(jobs, slots=2)
    beside, most = 0, 0
    for word in notes(tmp_path):
        beside += 1 if word[0] == "+" else -1
        most = max(most, beside)
    assert stopped_by == 0 and states(queue) == ["done"] * 5 and most == 2
    assert capsys.readouterr().out.splitlines() == [f"a fold {fold}: started" for fold in range(5)]


def test_what_dies_is_started_again_and_only_so_often(job, capsys):
    jobs = [job("echo fold 0: here; [ $try -ge 3 ]"), job("echo torn; exit 7", "b", 1), job("exit 0", "c", 2)]
    queue, _ = run(jobs)
    assert states(queue) == ["done", "failed", "done"]
    assert [ticket.attempts for ticket in queue.tickets] == [3, 3, 1]
    shown = capsys.readouterr().out
    assert shown.count("a fold 0: here") == 3 and "a fold 0: started, attempt 3 of 3" in shown
    assert "b fold 1: failed, attempt 3 of 3 ended with exit status 7" in shown and "  torn\n" in shown
    assert f"log: {jobs[1].log}" in shown and "to repeat it: train b 1" in shown
    assert jobs[1].log.read_text().count("torn") == 3


def test_what_was_refused_is_not_tried_again_nor_its_runs_other_folds(job, tmp_path, capsys):
    jobs = [job("note a0; echo before; echo error: no such; echo setting; exit 2", fold=0)]
    jobs += [job("note a1", fold=1), job("note b0", "b")]
    queue, _ = run(jobs)
    assert states(queue) == ["refused", "dropped", "done"] and notes(tmp_path) == ["a0", "b0"]
    shown = capsys.readouterr().out
    assert f"refused, see {jobs[0].log}\nerror: no such\nsetting\nnot started: a fold 1\n" in shown


def test_after_a_crash_the_runs_other_folds_go_on(job, tmp_path):
    """Exit status 1, with which a fault of the program ends (an error of numpy, too), is no refusal."""
    jobs = [job("note a0; exit 1", fold=0), job("note a1", fold=1)]
    queue, _ = run(jobs, attempts=2)
    assert states(queue) == ["failed", "done"] and notes(tmp_path) == ["a0", "a0", "a1"]


def test_what_the_kernel_killed_runs_again_with_nothing_beside_it(job, tmp_path):
    first = job("note +x; [ $try -gt 1 ] || kill -9 $$; sleep 0.2; note -x")
    others = [job(f"note +{fold}; sleep 0.15; note -{fold}", "b", fold) for fold in range(4)]
    queue, _ = run([first, *others], slots=3)
    seen = notes(tmp_path)
    assert states(queue) == ["done"] * 5 and queue.tickets[0].attempts == 2
    assert seen.count("+x") == 2 and seen[-2:] == ["+x", "-x"]


def test_a_fold_that_another_process_trains_is_waited_for(job, capsys):
    queue, _ = run([job("[ $try -gt 4 ] || exit 75"), job("exit 0", "b")], attempts=1)
    assert states(queue) == ["done", "done"] and queue.tickets[0].attempts == 1
    assert capsys.readouterr().out.count("another process trains it now") == 4


def test_a_signal_lets_the_children_save_and_ends(job, tmp_path, capsys):
    lasting = "trap 'note saved; exit 143' TERM; note up; while :; do sleep 0.02; done"
    jobs = [job(lasting, fold=0), job(lasting, fold=1), job("note never", fold=2)]

    def interrupt():
        while notes(tmp_path).count("up") < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    queue, stopped_by = run(jobs, slots=2)
    assert stopped_by == signal.SIGTERM and states(queue) == ["waiting"] * 3
    assert sorted(notes(tmp_path)) == ["saved", "saved", "up", "up"]
    assert "stopping; waiting until saved: a fold 0, a fold 1" in capsys.readouterr().out


def test_each_process_sees_one_gpu_and_words_leave_them_to_the_nets(job, tmp_path, monkeypatch):
    """The first words, listed before the nets, end only when all nets have been on a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    line = 'note "$1:$CUDA_VISIBLE_DEVICES"'
    words = [job(f"{line}; wait_for '^n' 4", "w", fold) for fold in range(3)]
    nets = [job(f"{line}; wait_for '^n' 2", "n", fold, wants_gpu=True) for fold in range(4)]
    queue, _ = run(words + nets, slots=[Slot("4"), Slot("5"), Slot("")])
    seen = notes(tmp_path)
    assert states(queue) == ["done"] * 7
    assert [note for note in seen if note[0] == "w"] == ["w0:", "w1:", "w2:"]
    assert {note for note in seen if note[0] == "n"} >= {"n0:4", "n1:5"}
    assert {note[2:] for note in seen if note[0] == "n"} == {":4", ":5"}


def test_the_children_share_the_cores_and_ours_is_their_session(job, tmp_path, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    line = 'note "$FOLDBLEND_THREADS,$GOMP_SPINCOUNT,$FOLDBLEND_QUEUE,${CUDA_VISIBLE_DEVICES-unset}"; note "$$"; '
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    Queue([job(line + "ps -o pgid= -p $$ >" + f"{tmp_path}/group")], [Slot(None)], 3, 1, Screen()).run()
    environment, pid = notes(tmp_path)
    assert environment == f"3,2000,{os.getpid()},unset"
    assert (tmp_path / "group").read_text().strip() == pid


def test_lines_that_stay_are_shown_and_ticks_are_not(job, capsys):
    said = ["fold 0:  45%  loss 0.2", "fold 0: epoch 1 ended", "Loading weights", "oof/c/a/fold0.npz: 0.5"]
    run([job("; ".join(f'echo "{line}"' for line in said))])
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["a fold 0: started", "a fold 0: epoch 1 ended", "a fold 0: oof/c/a/fold0.npz: 0.5"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent has ended")
def test_kill_9_of_the_queue_ends_its_children(tmp_path):
    """The child follows as train.py does, first thing."""
    child = "import time; from foldblend.learners.processes.interruption import follow_launcher; follow_launcher(); "
    child += "print('up', flush=True); time.sleep(99)"
    code = f"""
import sys; from pathlib import Path
from foldblend.queueing.queue import Queue; from foldblend.console import Screen
from foldblend.queueing.machines import Slot; from foldblend.queueing.queue import FoldJob
job = FoldJob("a", 0, (sys.executable, "-c", {child!r}), "", Path({str(tmp_path)!r}) / "log", False)
Queue([job], [Slot(None)], 1, 3, Screen()).run()"""
    queue = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SRC)})
    while not (tmp_path / "log").exists() or "up" not in (tmp_path / "log").read_text():
        assert queue.poll() is None
        time.sleep(0.02)
    (process,) = psutil.Process(queue.pid).children()
    queue.kill()
    queue.wait()
    psutil.wait_procs([process], timeout=10)
    assert not process.is_running()


def test_jobs_may_be_added_and_dropped_while_the_queue_works(job, tmp_path):
    """One run is added when the first is done; its training, which would never end, is stopped and not tried again."""
    queue = Queue([job("note a", run="a")], [Slot(None)] * 2, 1, 3, Screen())
    steps = []

    def follow():
        if not steps and states(queue) == ["done"]:
            steps.append("added")
            endless = "trap 'exit 143' TERM; note b; while true; do sleep 0.02; done"
            queue.add([job(endless, run="b"), job("note never", run="b", fold=1, wants_gpu=True)])
            queue.tickets[-1].not_before = time.monotonic() + 60
            assert queue.n_idle == 0
        elif steps == ["added"] and "b" in notes(tmp_path):
            steps.append("dropped")
            queue.drop("b")
        return len(steps) < 2

    assert queue.run(follow) == 0
    assert states(queue) == ["done", "dropped", "dropped"] and notes(tmp_path) == ["a", "b"]
    assert queue.n_idle == 2 and "0 failed" not in queue._status_lines()[0]
