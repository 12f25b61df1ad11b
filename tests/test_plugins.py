"""Plugins: what a workspace's own modules register, and what is refused."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from foldblend import plugins
from foldblend.commands import blend, guard
from foldblend.errors import UserError
from foldblend.plugins import load_plugins
from foldblend.scoring.ensembling.strategies import STRATEGIES
from foldblend.scoring.metrics.table import METRICS
from foldblend.settings.loading import load_defaults, load_run
from foldblend.settings.tables import LEARNERS, LOSSES

METRIC = """from foldblend.plugins import metric

@metric("share_of_ones")
def share_of_ones(labels, decisions):
    return float(decisions.mean())
"""


@pytest.fixture(autouse=True)
def forget(tmp_path_factory):
    """No plugin of one test is there in the next."""
    yield
    load_plugins([], tmp_path_factory.mktemp("elsewhere"))


def add(paths, name, text, *, default=True):
    (paths.root / f"{name}.py").write_text(text)
    if default:
        with (paths.configs / "default.yaml").open("a") as file:
            file.write(f"plugins: [{name}]\n")


def test_a_module_of_the_workspace_is_imported_by_every_reader_of_default_yaml(paths):
    add(paths, "my_metrics", METRIC)
    assert load_defaults(paths).plugins == ("my_metrics",) and "share_of_ones" in METRICS


def test_it_is_imported_once(paths):
    add(paths, "my_metrics", METRIC)
    load_defaults(paths)
    first = METRICS["share_of_ones"]
    load_defaults(paths)
    assert METRICS["share_of_ones"] is first


def test_another_workspace_has_other_plugins(paths, tmp_path):
    add(paths, "my_metrics", METRIC)
    load_defaults(paths)
    other = tmp_path / "other"
    other.mkdir()
    (other / "my_metrics.py").write_text(METRIC.replace("share_of_ones", "second"))
    load_plugins(["my_metrics"], other)
    assert "second" in METRICS and "share_of_ones" not in METRICS


def test_a_package_and_its_helpers(paths):
    (paths.root / "mine").mkdir()
    (paths.root / "mine" / "__init__.py").write_text("")
    (paths.root / "mine" / "helpers.py").write_text("VALUE = 0.25\n")
    (paths.root / "mine" / "metrics.py").write_text(METRIC + "\nfrom mine.helpers import VALUE\n")
    load_plugins(["mine.metrics"], paths.root)
    assert "share_of_ones" in METRICS and sys.modules["mine.metrics"].VALUE == 0.25


def test_installed_modules_are_plugins_too(paths, tmp_path, monkeypatch):
    installed = tmp_path / "site"
    installed.mkdir()
    (installed / "their_metrics.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(installed))
    load_plugins(["their_metrics"], paths.root)
    assert METRICS.pop("share_of_ones") and plugins._REGISTERED.pop(("metric", "share_of_ones"))


def test_the_workspace_shadows_no_library(paths):
    add(paths, "numpy", "raise RuntimeError('wrong one')\n", default=False)
    with pytest.raises(UserError, match=r"plugin numpy is named like an installed module .*; rename .*numpy.py"):
        load_plugins(["numpy"], paths.root)
    add(paths, "random", "", default=False)
    load_plugins([], paths.root)
    assert "random.py" in sys.modules["random"].__file__ and str(paths.root) not in sys.modules["random"].__file__


@pytest.mark.parametrize(
    "name, message",
    [
        ("no_such_module", "plugin no_such_module is missing: no .*no_such_module.py and no installed module"),
        ("../up", "plugins holds '../up'; expected the name of a module, such as my_module"),
        ("my-module", "plugins holds 'my-module'"),
        ("", "plugins holds ''"),
    ],
)
def test_a_missing_plugin_is_named(paths, name, message):
    with pytest.raises(UserError, match=message):
        load_plugins([name], paths.root)


def test_a_missing_plugin_is_one_message_of_a_command(paths, toy_competition, capsys):
    with (paths.configs / "default.yaml").open("a") as file:
        file.write("plugins: [no_such_module]\n")
    assert guard(lambda: blend.main(["--competition", "toy"])) == 2
    assert capsys.readouterr().err.startswith("error: plugin no_such_module is missing: no ")


@pytest.mark.parametrize("text, error", [("1 / 0\n", "ZeroDivisionError"), ("import no_such\n", "ModuleNotFoundError")])
def test_a_plugins_own_bug_keeps_its_traceback(paths, toy_competition, capsys, text, error):
    add(paths, "broken", text)
    assert guard(lambda: blend.main(["--competition", "toy"])) == 1
    shown = capsys.readouterr().err
    assert "broken.py" in shown and error in shown
    assert "(raised by the plugin broken, which `plugins` in configs/default.yaml names)" in shown


@pytest.mark.parametrize(
    "text, message",
    [
        (METRIC.replace("share_of_ones", "macro_f1"), "metric macro_f1 is already registered by the package itself"),
        (METRIC.replace('"share_of_ones"', '"x", answer="labels"'), "metric x: answer is 'labels'; expected decisions"),
        ("from foldblend.plugins import learner\n@learner('a-b')\nclass A: pass\n", "learner 'a-b' cannot be regis"),
        ("from foldblend.plugins import learner\n@learner('model')\nclass A: pass\n", "learner 'model' cannot be"),
        ("from foldblend.plugins import loss\n@loss('bce')\ndef build(*_): pass\n", "loss bce is already registered"),
        (
            "from foldblend.plugins import strategy\n@strategy('mean_probs')\ndef fit(_): pass\n",
            "strategy mean_probs is",
        ),
    ],
)
def test_what_cannot_be_registered_is_refused_with_the_plugins_name(paths, text, message):
    add(paths, "wrong", text)
    with pytest.raises(UserError, match=f"plugin wrong cannot be used: {message}"):
        load_defaults(paths)


def test_two_plugins_may_not_take_one_name(paths):
    for name in ("first", "second"):
        add(paths, name, METRIC, default=False)
    with pytest.raises(
        UserError, match="plugin second cannot be used: metric share_of_ones is already registered by fi"
    ):
        load_plugins(["first", "second"], paths.root)


@dataclass(frozen=True)
class OwnSettings:
    alpha: float = 1.0
    """Anything."""


def test_a_learners_settings_are_checked_as_strictly_as_the_packages_own(paths):
    plugins.learner("own", settings=OwnSettings)(object)
    try:
        path = paths.configs / "runs" / "mine.yaml"
        path.write_text("learner: own\nown: {alpha: 2}\n")
        assert load_run(paths, "mine").plugin == OwnSettings(2.0)
        path.write_text("learner: own\n")
        assert load_run(paths, "mine").plugin == OwnSettings()
        for text, message in (
            ("own: {alhpa: 2}", "own.alhpa.*did you mean 'own.alpha'"),
            ("own: {alpha: much}", "alpha"),
            ("model: {name: x}", "learner own does not read model"),
        ):
            path.write_text(f"learner: own\n{text}\n")
            with pytest.raises(UserError, match=message):
                load_run(paths, "mine")
    finally:
        plugins._REGISTERED.pop(("learner", "own"))
        LEARNERS.pop("own")


def test_a_cell_of_a_notebook_can_be_run_again():
    def again():
        return 0.0

    again.__module__ = "__main__"
    try:
        plugins.metric("of_a_cell")(again)
        plugins.metric("of_a_cell")(again)
    finally:
        plugins._REGISTERED.pop(("metric", "of_a_cell"))
        METRICS.pop("of_a_cell")


def test_blend_loads_no_torch_with_plugins(paths, toy_competition):
    """The lines of docs/architecture.md import torch inside the loss alone."""
    add(paths, "my_loss", "from foldblend.plugins import loss\n\n@loss('squared')\ndef build(*_):\n    import torch\n")
    code = (
        "import sys; from foldblend.commands import blend\n"
        "from foldblend.settings.loading import load_defaults\nfrom foldblend.settings.paths import find_paths\n"
        "load_defaults(find_paths()); print('torch' in sys.modules)"
    )
    path = str(plugins.Path(plugins.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={
        "PYTHONPATH": path, "FOLDBLEND_ROOT": str(paths.root)})  # fmt: skip
    assert done.stdout == "False\n", done.stderr


def test_nothing_is_left_after_these_tests():
    assert not plugins._REGISTERED
    assert "squared" not in LOSSES and set(STRATEGIES) >= {"mean_probs", "shrunk_stack"}


def test_a_plugin_keeps_a_name_that_the_package_took_later(tmp_path):
    """`macro_f2` was the example of a plugin before it was a metric of the package."""
    own = METRICS["macro_f2"]
    (tmp_path / "my_f2.py").write_text(
        "from foldblend.plugins import metric\n\n@metric('macro_f2')\ndef score(labels, answer):\n    return 0.25\n"
    )
    load_plugins(["my_f2"], tmp_path)
    assert METRICS["macro_f2"].score(None, None) == 0.25
    load_plugins([], tmp_path / "elsewhere")
    assert METRICS["macro_f2"] is own


def test_a_metric_of_ranked_lists_is_there_under_every_number(paths):
    add(paths, "my_lists", '''from foldblend.plugins import metric

@metric("hit_at_k", answer="list")
def hit_at_k(labels, probs, k):
    listed = (-probs).argsort(axis=1)[:, :k]
    return float(labels[range(len(labels)), listed.T].any(axis=0).mean())
''')  # fmt: skip
    load_defaults(paths)
    labels, probs = np.eye(3, dtype=bool), np.array([[0.5, 0.3, 0.2]] * 3)
    assert METRICS["hit_at_2"].score(labels, probs) == pytest.approx(2 / 3) and METRICS["hit_at_2"].is_ranked
    name = METRIC.replace('share_of_ones")', 'hits_at", answer="list")')
    with pytest.raises(UserError, match="metric hits_at: answer is list, so its name must end in _at_k"):
        exec(name, {})


def test_a_plugin_keeps_the_name_of_a_list_that_the_package_took_later(paths):
    add(paths, "my_map", METRIC.replace("share_of_ones", "map_at_3"))
    load_defaults(paths)
    assert not METRICS["map_at_3"].is_ranked and METRICS["map_at_5"].is_ranked
