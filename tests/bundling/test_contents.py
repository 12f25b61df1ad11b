import pytest

from foldblend.bundling.dataset import BundledModel, building, copy_model, copy_plugins
from foldblend.learners.nets.folders import NEEDED
from foldblend.learners.trained import MODEL


def test_chat_templates_are_copied_to_where_they_lay(tmp_path):
    source, target = tmp_path / "source", tmp_path / "dataset"
    names = ["additional_chat_templates/rag.jinja", "chat_template.jinja", "config.json", "tokenizer.json"]
    for name in [*names, "model.safetensors"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    model = BundledModel("chat", "org/chat", source, NEEDED, {"config_sha256": "0" * 64}, attached=False)
    copy_model(model, target / "checkpoints" / "toy" / "chat", MODEL, target)
    copied = target / "models" / model.key
    found = sorted(path.relative_to(copied).as_posix() for path in copied.rglob("*") if path.is_file())
    assert found == names and all((copied / name).read_text() == name for name in names)


def test_plugins_of_the_workspace_are_copied_and_installed_ones_named(tmp_path):
    root, target = tmp_path / "root", tmp_path / "dataset"
    for name in ("one.py", "many/__init__.py", "many/inner/losses.py", "many/notes.txt", "other.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    assert copy_plugins(["one", "many.inner.losses", "numpy"], root, target) == ["numpy"]
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert found == ["many/__init__.py", "many/inner/losses.py", "one.py"]


def test_a_folder_is_replaced_only_by_a_complete_one(tmp_path):
    target = tmp_path / "bundle"
    for text in ("first", "second"):
        with building(target) as folder:
            (folder / "file").write_text(text)
    with pytest.raises(ValueError, match="stop"), building(target) as folder:
        (folder / "file").write_text("third")
        raise ValueError("stop")
    assert (target / "file").read_text() == "second" and list(tmp_path.iterdir()) == [target]
