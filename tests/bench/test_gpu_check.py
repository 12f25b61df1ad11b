"""The check that runs on a GPU, rehearsed on the CPU, so that nothing in it is stale when a GPU is at hand."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "bench" / "gpu"
REHEARSAL = ["--device", "cpu", "--tiny"]


def command(*words):
    return [sys.executable, str(FOLDER / "check.py"), *REHEARSAL, *map(str, words)]


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The check's modules in this process, and a folder of its own for their models."""
    with pytest.MonkeyPatch.context() as patch:
        loaded = {name: load(name) for name in ("inputs", "check", "correctness", "speed", "kernels")}
        models = tmp_path_factory.mktemp("models")
        patch.setattr(loaded["inputs"], "models_folder", lambda: models)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield loaded
        for name in loaded:
            del sys.modules[name]


def rehearse(modules, part, out, cases):
    """Run a part in this process; its findings by case."""
    check = modules["inputs"].Check(part, out, "cpu", True, cases)
    module = modules[modules["check"].PARTS[part][0]]
    getattr(module, f"part_{part}")(check)
    return found_in(modules, out)


def found_in(modules, out):
    return {line["case"]: line["found"] for line in modules["inputs"].read_results(out) if "case" in line}


def test_every_part_is_there(modules):
    for part, (module, seconds, tells) in modules["check"].PARTS.items():
        assert callable(getattr(modules[module], f"part_{part}")) and seconds > 0 and tells
        assert f"| {part}" in (FOLDER / "README.md").read_text() or part in ("lora", "lora14")


def test_the_settings_of_every_case_are_valid(modules):
    """Names of settings change; a case with an old one would be lost on the GPU."""
    parts = modules["correctness"]
    cases = [*parts.parity_cases("bf16"), *parts.fold_cases(), *parts.fp16_cases()]
    assert len(cases) > 40 and len({run.learner for _, run in cases}) == 3


def test_sides_that_agree_and_sides_that_differ(modules):
    parts = modules["correctness"]
    run = parts.settings("encoder", "roberta", training__precision="fp32")
    once, again = parts.three_steps(run), parts.three_steps(run)
    named = [{f"case|{what}": value for what, value in found.items()} for found in (once, again)]
    assert parts.compare_sides("case", *named)["verdict"] == "ok"
    for what in ("before", "gradients", "losses", "after"):
        other = {**named[1], f"case|{what}": named[1][f"case|{what}"] * 1.5}
        assert parts.compare_sides("case", named[0], other)["verdict"] == "DIFFERS", what
    broken = {"case|failed": np.array("RuntimeError: no kernel")}
    assert parts.compare_sides("case", named[0], broken) == {"FAILED": {"GPU": "RuntimeError: no kernel"}}


def test_a_fold_is_killed_and_goes_on(modules, tmp_path):
    found = rehearse(modules, "folds", tmp_path, 1)
    assert found["encoder"]["verdict"] == "ok" and "cpu" in found["encoder"]["on"]


def test_speed_of_both_sides(modules, tmp_path):
    found = rehearse(modules, "encoders", tmp_path, 4)
    ours, trainers = found["minilm, batch 16, ours"], found["minilm, batch 16, Trainer"]
    assert ours["rows/s"] > 0 and ours["tokens/s"] > ours["rows/s"] and ours["of bf16 products"].endswith("%")
    assert trainers["rows/s"] > 0


def test_lora_and_its_profile(modules, tmp_path):
    assert rehearse(modules, "lora", tmp_path, 1)["1.5B, batch 16"]["rows/s"] > 0
    assert rehearse(modules, "lora14", tmp_path, 1)["14B, bf16, batch 16"]["rows/s"] > 0
    rehearse(modules, "profile", tmp_path, 1)
    table = (tmp_path / "profile.md").read_text()
    assert table.startswith("\n## roberta-base, batch 16") and "| matrix products |" in table


def test_failures_are_findings(modules, tmp_path):
    def fail():
        raise RuntimeError("no kernel image")

    check = modules["inputs"].Check("folds", tmp_path, "cpu", True, 0)
    check.attempt("one", fail)
    check.attempt("two", lambda: None)
    assert found_in(modules, tmp_path) == {"one": {"FAILED": "RuntimeError: no kernel image"}, "two": "ok"}
    modules["inputs"].add_result(tmp_path, {"part": "folds", "ended": "done", "seconds": 1.0})
    assert modules["check"].show_part("folds", tmp_path)  # and the call's exit status says so


def test_a_killed_part_goes_on_with_what_is_missing(modules, tmp_path):
    """The call is killed in the middle of a part and of a line; --resume keeps what was found, and ends the rest."""
    results = tmp_path / "results.jsonl"
    before = json.dumps({"part": "machine", "case": "versions", "found": "kept"})
    results.write_text(f'{before}\n{{"part": "machine", "case": "comm')
    done = subprocess.run(command("--out", tmp_path, "--only", "machine"), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--resume" in done.stderr
    resume = command("--out", tmp_path, "--only", "machine", "--resume")
    child = subprocess.Popen(resume, start_new_session=True, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not (tmp_path / "log.txt").exists() and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for words in ("machine: done", "machine: done before"):
        done = subprocess.run(resume, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and words in done.stdout, done.stdout + done.stderr
    assert found_in(modules, tmp_path) == {"versions": "kept", "commands import": "ok"}


def test_a_part_is_stopped_at_its_limit_with_all_that_it_started(modules, tmp_path, monkeypatch):
    check, script = modules["check"], tmp_path / "part.py"
    script.write_text(
        "import subprocess, sys, time\n"
        "for own in (False, True):  # torchrun gives its processes sessions of their own\n"
        "    subprocess.Popen(['sleep', '61.7'], start_new_session=own)\n"
        "time.sleep(60)\n"
    )
    monkeypatch.setattr(check, "part_command", lambda name, args: [sys.executable, str(script)])
    monkeypatch.setitem(check.PARTS, "machine", ("correctness", 1, ""))
    monkeypatch.setattr(check, "ON_CPU", 1)
    monkeypatch.setattr(sys, "argv", command("--out", tmp_path)[1:])
    args = check.parse_flags()
    assert check.start_part("machine", args, dict(os.environ), 30) == "stopped at its limit"
    assert check.start_part("machine", args, dict(os.environ), 0.5) == "stopped, no time left"
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")] if os.path.isdir("/proc") else []
    assert not any(words == b"sleep\x0061.7\x00" for words in running)


def test_only_missing_packages_are_unpacked(modules, tmp_path):
    for name in ("numpy-0.1-py3-none-any.whl", "not_at_hand-1.0-py3-none-any.whl"):
        with zipfile.ZipFile(tmp_path / name, "w") as wheel:
            wheel.writestr(f"{name.split('-')[0]}/__init__.py", "")
    modules["check"].unpack_missing(tmp_path, tmp_path / "packages")
    assert [path.name for path in (tmp_path / "packages").iterdir()] == ["not_at_hand"]
