import ast
import json
from pathlib import Path

import pytest

from foldblend.bundling.dataset import BundledModel, BundleFolder, copy_model, copy_plugins, notebook
from foldblend.errors import UserError
from foldblend.learners.nets.folders import NEEDED
from foldblend.learners.trained import MODEL


def test_chat_templates_are_copied_to_where_they_lay(tmp_path):
    source, target = tmp_path / "source", tmp_path / "dataset"
    names = ["additional_chat_templates/rag.jinja", "chat_template.jinja", "config.json", "tokenizer.json"]
    for name in [*names, "model.safetensors", "kaggle.json", "notes.txt", "trainer_state.json", "keys.env"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    model = BundledModel("chat", "org/chat", source, NEEDED, {"config_sha256": "0" * 64}, attached=False)
    copy_model(model, "checkpoints/toy/chat", MODEL, BundleFolder(target))
    copied = target / "models" / model.key
    found = sorted(path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file())
    assert found == names and all((copied / name).read_text() == name for name in names)


def test_plugins_of_the_workspace_are_copied_and_installed_ones_named(tmp_path):
    root, target = tmp_path / "root", tmp_path / "dataset"
    for name in ("one.py", "many/__init__.py", "many/inner/losses.py", "many/notes.txt", "other.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    assert copy_plugins(["one", "many.inner.losses", "numpy"], root, BundleFolder(target)) == ["numpy"]
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert found == ["many/__init__.py", "many/inner/losses.py", "one.py"]


def test_a_bundle_holds_what_was_written_and_nothing_else(tmp_path):
    bundle = BundleFolder(tmp_path / "dataset")
    bundle.write("a/one.json", b"{}")
    bundle.copy(Path(__file__), "two.py")
    bundle.prove()
    for name, data in (("two.py", b"other bytes"), ("stray", b"")):
        (bundle.root / name).write_bytes(data)
        with pytest.raises(UserError, match=f"1 of 2 files differ, first {name}. Another program"):
            bundle.prove()
        bundle.note("two.py")
    (bundle.root / "stray").unlink()
    (bundle.root / "a" / "one.json").unlink()
    with pytest.raises(UserError, match="first a/one.json"):
        bundle.prove()


@pytest.mark.parametrize("evil", ['a"b', "a'b", "{DATASET}", "a\\", 'x"); import os; os.system("id") #', "\u2028é"])
def test_names_are_values_in_the_notebook_and_never_code(evil):
    cells = notebook(evil, evil, evil)["cells"]
    code = "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
    tree = ast.parse(code)  # the same statements, whatever the names are
    assert [type(each) for each in tree.body] == [type(each) for each in ast.parse(_plain_code()).body]
    line = next(
        each for each in tree.body if isinstance(each, ast.Assign) and "DATASET" in ast.unparse(each.targets[0])
    )
    assert json.loads(ast.literal_eval(line.value.args[0])) == [evil] * 3


def _plain_code():
    cells = notebook("a", "b", "c")["cells"]
    return "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])
