from foldblend.bundling.contents import BundledModel, copy_model
from foldblend.learners.trained import MODEL, NEEDED


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
