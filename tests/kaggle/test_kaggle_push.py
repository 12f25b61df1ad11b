"""Dataset and notebook through the real client, to a server of the tests' own."""

import json

import pytest
from kaggle_server import KEY, Kaggle, Refusal, serving

from foldblend.kaggle.client import default_owner, push


class Datasets(Kaggle):
    """A Kaggle with datasets and notebooks; `statuses` are told one by one, the last one for ever."""

    datasets, notebooks, statuses, refusals = None, None, None, None

    def answer(self, method, body):
        if self.refusals and method in self.refusals:
            raise Refusal(*self.refusals[method])
        return getattr(self, f"on_{method}")(body)

    def on_GetDatasetStatus(self, body):
        if not self.datasets:
            raise Refusal(404, "Dataset not found")
        return {"status": self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]}

    def on_StartBlobUpload(self, body):
        token = f"token{len(self.uploads)}"
        self.uploads[token] = {"fileName": body["name"]}
        return {"token": token, "createUrl": f"http://localhost/upload/{token}"}

    def on_CreateDataset(self, body):
        self.datasets = [body]
        return {"status": "Ok", "url": "https://www.kaggle.com/datasets/u/toy", "ref": "u/toy"}

    def on_CreateDatasetVersion(self, body):
        self.datasets.append(body)
        return {"status": "Ok", "url": "https://www.kaggle.com/datasets/u/toy", "ref": "u/toy"}

    def on_SaveKernel(self, body):
        self.notebooks = [*(self.notebooks or []), body]
        return {"url": "https://www.kaggle.com/code/u/toy", "versionNumber": 1, "error": ""}


@pytest.fixture
def kaggle(tmp_path, monkeypatch):
    with serving({}, monkeypatch, tmp_path / "home") as server:
        server.__class__ = Datasets
        server.statuses = ["NOT_YET_PERSISTED", "READY"]
        yield server


@pytest.fixture
def folders(tmp_path):
    """The two folders of a bundle, as small as they can be."""
    dataset, notebook = tmp_path / "blend-1" / "dataset", tmp_path / "blend-1" / "notebook"
    (dataset / "src").mkdir(parents=True)
    notebook.mkdir()
    (dataset / "src" / "a.py").write_text("1")
    (dataset / "bundle.json").write_text("{}")
    about = {"title": "toy-blend-1", "id": "u/toy-blend-1", "licenses": [{"name": "other"}]}
    (dataset / "dataset-metadata.json").write_text(json.dumps(about))
    kernel = {
        "id": "u/toy-blend-1-predict", "title": "toy-blend-1-predict", "code_file": "predict.ipynb",
        "language": "python", "kernel_type": "notebook", "enable_internet": False, "enable_gpu": True,
        "dataset_sources": ["u/toy-blend-1"], "competition_sources": ["toy"], "model_sources": [],
    }  # fmt: skip
    (notebook / "kernel-metadata.json").write_text(json.dumps(kernel))
    (notebook / "predict.ipynb").write_text(json.dumps({"cells": []}))
    return dataset, notebook


def test_first_a_dataset_then_the_notebook_that_reads_it(kaggle, folders):
    shown = []
    push(*folders, "blend-1", shown.append, pause=0)
    assert sorted(one["fileName"] for one in kaggle.uploads.values()) == ["bundle.json", "src.zip"]
    assert kaggle.datasets[0]["slug"] == "toy-blend-1" and kaggle.datasets[0]["isPrivate"] is True
    assert kaggle.asked.index("SaveKernel") > len(kaggle.asked) - 2
    assert "waiting for the dataset: not_yet_persisted" in shown
    sent = kaggle.notebooks[0]
    assert sent["enableInternet"] is False and sent["datasetDataSources"] == ["u/toy-blend-1"]
    assert not any(KEY in line for line in shown)
    push(*folders, "blend-1 again", shown.append, pause=0)
    assert len(kaggle.datasets) == 2 and len(kaggle.notebooks) == 2


@pytest.mark.parametrize(
    "refused, said",
    [
        ({"CreateDataset": (403, f"You may not, {KEY}")}, "Kaggle refuses the dataset: .*You may not, <redacted>"),
        ({"SaveKernel": (400, "no such accelerator")}, "Kaggle refuses the notebook: .*no such accelerator"),
        ({"SaveKernel": (401, "who are you")}, "Kaggle refuses the credentials"),
    ],
)
def test_refusals_are_told(kaggle, folders, refused, said):
    kaggle.refusals = refused
    with pytest.raises(ValueError, match=said):
        push(*folders, "blend-1", lambda _: None, pause=0)


def test_a_dataset_that_fails_to_unpack_gets_no_notebook(kaggle, folders):
    kaggle.statuses = ["FAILED"]
    with pytest.raises(ValueError, match="dataset u/toy-blend-1 is failed after 0 s; the notebook was not pushed"):
        push(*folders, "blend-1", lambda _: None, pause=0)
    assert kaggle.notebooks is None


def test_sources_that_kaggle_does_not_know_are_an_error(kaggle, folders, monkeypatch):
    unknown = {"invalidCompetitionSources": ["toy"], "url": "https://x", "error": ""}
    monkeypatch.setattr(Datasets, "on_SaveKernel", lambda self, body: unknown)
    with pytest.raises(ValueError, match="Kaggle refuses the notebook: it knows no toy"):
        push(*folders, "blend-1", lambda _: None, pause=0)


def test_the_name_comes_from_the_credentials(tmp_path, monkeypatch):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    monkeypatch.delenv("KAGGLE_CONFIG_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_owner() == ""
    (tmp_path / ".kaggle").mkdir()
    for content, name in (('{"username": "anna", "key": "x"}', "anna"), ("[]", ""), ("{", "")):
        (tmp_path / ".kaggle" / "kaggle.json").write_text(content)
        assert default_owner() == name
    monkeypatch.setenv("KAGGLE_USERNAME", "otto")
    assert default_owner() == "otto"
