"""`camseg distill` on data sets whose classes stand in another order than the model's."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from camvid_folder import write_camvid
from data_trees import cityscapes
from lite import tiny_lite

from camseg_core.cli.main import main
from camseg_core.data.sets import open_set
from camseg_core.labels import CAMVID_11
from camseg_core.model.camseg import CamSeg
from camseg_core.training.output import result_folder
from camseg_core.training.run import TrainingData

CONFIG = Path(__file__).parents[2] / "config" / "train" / "distill.yaml"
SMALL = ("loop.steps=2", "loop.validate_every=2", "batch=2", "crop=[64, 64]")


def write_folder(root: Path, camvid: Path, classes: tuple[str, ...]) -> None:
    """Write the frames of `camvid` as a `folder` set whose mapping names `classes`."""
    shutil.copytree(camvid, root)
    ids = {name: [index] for index, (_, name) in enumerate(CAMVID_11) if name in classes}
    others = [index for index in range(12) if [index] not in ids.values()]
    (root / "mapping.yaml").write_text(yaml.safe_dump({"ids": {**ids, "unlabelled": others}}))


def distill(root: Path, data: str, kind: str) -> None:
    folders = [
        *("--model", root / "model", "--config", CONFIG, "--data", root / data),
        *("--run", root / f"run-{data}", "--out", root / f"out-{data}"),
    ]
    settings = [f"--set=data={kind}", *(f"--set=training.{change}" for change in SMALL)]
    main(["distill", *map(str, folders), *settings])


def save(
    trained: CamSeg, data: TrainingData, run: Path, out: Path, history: object, export: bool
) -> None:
    with result_folder(out, run) as folder:
        trained.save_pretrained(folder)


def validation(log: Path) -> str:
    (line,) = (line for line in log.read_text().splitlines() if "validation" in line)
    return line


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_camvid(tmp_path / "camvid", "train", "val", size=(64, 96))
    tiny_lite().save_pretrained(tmp_path / "model")
    return tmp_path


def test_a_folder_with_its_classes_in_another_order_trains_the_same_model(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camseg_core.training.distill.finish", save)  # spare export and scores
    write_folder(root / "folder", root / "camvid", tuple(name for _, name in CAMVID_11))
    labels = open_set("folder", root / "folder", "train").labels
    assert labels != tiny_lite().labels
    assert set(labels) == set(tiny_lite().labels)
    distill(root, "camvid", "camvid")
    distill(root, "folder", "folder")
    expected, found = (
        CamSeg.from_pretrained(root / f"out-{data}") for data in ("camvid", "folder")
    )
    assert found.labels == expected.labels == tiny_lite().labels
    tensors = found.state_dict()
    assert all(torch.equal(tensors[name], each) for name, each in expected.state_dict().items())
    validations = (root / f"run-{data}" / "transformer/log.jsonl" for data in ("camvid", "folder"))
    assert len({validation(path) for path in validations}) == 1


def test_a_run_resumes_from_the_same_start_only(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camseg_core.training.distill.finish", save)
    distill(root, "camvid", "camvid")
    kept = (root / "out-camvid" / "model.safetensors").read_bytes()
    CamSeg(tiny_lite().config, tiny_lite().labels).save_pretrained(root / "model")
    with pytest.raises(SystemExit) as caught:
        distill(root, "camvid", "camvid")
    assert caught.value.code == 2
    assert "the model to start from must be that of" in capsys.readouterr().err
    assert (root / "out-camvid" / "model.safetensors").read_bytes() == kept


def test_the_model_is_not_replaced_by_its_own_distillation(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "out-camvid").symlink_to(root / "model")
    before = {path.name: path.read_bytes() for path in (root / "model").iterdir()}
    with pytest.raises(SystemExit) as caught:
        distill(root, "camvid", "camvid")
    assert caught.value.code == 2
    assert "--out must not be the folder of the model to start from" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (root / "model").iterdir()} == before


def test_a_class_that_the_model_or_the_data_set_lacks_is_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(name for _, name in CAMVID_11)
    write_folder(root / "folder", root / "camvid", names[1:])
    cityscapes(root / "cityscapes")
    for data, kind, message in (
        ("folder", "folder", f"but {root / 'folder'} has no class named sky among road, "),
        (
            "cityscapes",
            "cityscapes",
            f"but {root / 'model'} has no class named wall, traffic light, ",
        ),
    ):
        with pytest.raises(SystemExit) as caught:
            distill(root, data, kind)
        assert caught.value.code == 2
        assert message in capsys.readouterr().err
        assert not (root / f"run-{data}" / "config.yaml").exists()
