"""The notebook that trains folds on Kaggle without internet, within its limit of hours, and goes on where it stopped.

Its dataset holds the package, settings, folds and pretrained models; the rows with their labels are the competition's
own files, which Kaggle mounts. What it trains stays in its output, in foldblend/oof and foldblend/checkpoints: attached
to the next version of the notebook, that goes on from it. All folds trained, it blends them and writes submission.csv.
"""

import json
from collections.abc import Sequence

from foldblend.bundling.dataset import FIND, INSTALL, code_notebook

MARKER = "foldblend-training.json"
"""In the output of such a notebook: which bundle it is of, and the hash of the test file that its folds predicted."""
SAVING_MINUTES = 15
"""Kept of the limit: trainings save themselves, and Kaggle stores the output."""

HEAD = """HOURS = LIMIT  # of this session; trainings then save themselves, and the next version goes on
STARTED = __import__("time").time()
"""
WORKSPACE = """import hashlib, shutil, signal, time

ROOT = WORKING / "foldblend"
HUB = Path(tempfile.mkdtemp())
DATA = ROOT / "data" / ABOUT["competition"]
DATA.mkdir(parents=True, exist_ok=True)
for folder in ("configs", "folds"):
    shutil.copytree(BUNDLE / folder, ROOT / folder, dirs_exist_ok=True)
for path in BUNDLE.glob("*.py"):  # plugins
    shutil.copy(path, ROOT / path.name)


def link(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        target.symlink_to(source)


for folder in sorted(path for path in INPUT.glob(f"**/{SLUG}") if path.is_dir() and BUNDLE not in path.parents):
    for path in folder.iterdir():  # the competition's own files
        link(path, DATA / path.name)
for name in ABOUT["data"]:  # wherever they are mounted
    if not (DATA / name).exists() and (found := find(name)) is not None:
        link(found, DATA / name)
lacking = [name for name in ABOUT["data"] if not (DATA / name).exists()]
if lacking:
    raise FileNotFoundError(f"no {lacking[0]} of {SLUG} below {INPUT}: attach the competition {SLUG}")

for model in ABOUT["models"]:
    source = BUNDLE / model["folder"]
    if model["is_folder"]:  # as the settings name it, from the project's folder
        link(source, Path(os.path.normpath(ROOT / model["name"])))
        continue
    cache = HUB / ("models--" + model["name"].replace("/", "--"))  # as the hub's own cache is laid out
    for path in source.rglob("*"):
        if path.is_file():
            link(path, cache / "snapshots" / ("0" * 40) / path.relative_to(source))
    (cache / "refs" / model["revision"]).parent.mkdir(parents=True, exist_ok=True)
    (cache / "refs" / model["revision"]).write_text("0" * 40)

ABOUT_NOW = {"name": NAME, "test_sha256": hashlib.sha256(TEST.read_bytes()).hexdigest()}
earlier = [path.parent for path in INPUT.glob("**/MARKER") if json.loads(path.read_text()) == ABOUT_NOW]
for folder in sorted(earlier, key=lambda path: len(list(path.glob("oof/*/*/*.npz")))):
    print("goes on from", folder)
    for name in ("oof", "checkpoints"):
        if (folder / name).is_dir():
            shutil.copytree(folder / name, ROOT / name, dirs_exist_ok=True)
(ROOT / "MARKER").write_text(json.dumps(ABOUT_NOW))
env = {**os.environ, "FOLDBLEND_ROOT": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(HUB)}
env["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()
"""
TRAIN = """command = [sys.executable, "-m", "foldblend", "train-all", "--competition", ABOUT["competition"]]
command += ["--runs", *ABOUT["runs"], "--fold", *ABOUT["folds"]]
child = subprocess.Popen(command, env=env, cwd=ROOT)
try:
    status = child.wait(max(1, HOURS * 3600 - (time.time() - STARTED) - SAVING))
except subprocess.TimeoutExpired:
    print(f"{HOURS} hours are over: every training saves itself", flush=True)
    child.send_signal(signal.SIGTERM)
    status = child.wait()
if status in (143, -signal.SIGTERM):  # the latter before a training began
    print("Not finished. Attach this notebook's output to its next version as an input, and run that: it goes on.")
elif status:
    raise RuntimeError(f"trainings failed, exit status {status}; the reasons are printed above")
"""
BLEND = """if status == 0 and ABOUT["blends"]:
    command = [sys.executable, "-m", "foldblend", "blend", "--competition", ABOUT["competition"]]
    subprocess.run([*command, "--runs", *ABOUT["runs"]], env=env, cwd=ROOT, check=True)
    made = max((ROOT / "submissions" / ABOUT["competition"]).glob("*.csv"), key=lambda path: path.stat().st_mtime)
    shutil.copy(made, WORKING / "submission.csv")
    print(made.name, "is submission.csv")
"""


def training_notebook(name: str, slug: str, dataset: str, hours: float) -> dict:
    """The notebook as .ipynb holds it.

    Args: name: of the bundle.   slug: of the competition.   dataset: `owner/slug` of the bundle's dataset.
          hours: of Kaggle's limit.
    """
    title = f"# {name}\nTrains folds for `{slug}` with the dataset `{dataset}`. Needs no internet."
    values = json.dumps(json.dumps([name, slug, dataset]))  # a text of ASCII: JSON writes it as Python reads it
    find = FIND.replace("SETTINGS\n", HEAD.replace("LIMIT", repr(float(hours)))).replace("VALUES", values)
    cells: Sequence[str] = [
        find,
        INSTALL,
        WORKSPACE.replace("MARKER", MARKER),
        TRAIN.replace("SAVING", str(SAVING_MINUTES * 60)),
        BLEND,
    ]
    return code_notebook(title, cells)
