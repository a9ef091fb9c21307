"""`camseg train` on a miniature data set, from frames to a checkpoint folder with its card."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import borrowed_graphs
import cv2
import numpy as np
import pytest
from camvid_folder import write_camvid
from lite import tiny_lite
from processes import run, torchrun
from safetensors.torch import load_file, save_file

from camseg_core.cli.main import main
from camseg_core.config.differences import differences
from camseg_core.config.model import save_config
from camseg_core.data.sets import open_set
from camseg_core.errors import ConfigError, ModelError
from camseg_core.labels import CITYSCAPES
from camseg_core.model.camseg import CamSeg
from camseg_core.model.precision import computes_bf16
from camseg_core.runtime import Segmenter
from camseg_core.training import class_offsets, joined
from camseg_core.training.card import About, in_lines
from camseg_core.training.codec import load_codec_into, save_codec
from camseg_core.training.distributed import Processes
from camseg_core.training.finetune import FinetuneRecipe
from camseg_core.training.frames import Frames, HeldFrames, ReadFrames
from camseg_core.training.joined import SetConfig
from camseg_core.training.mask_autoencoder import reconstruction_confusion
from camseg_core.training.run import TrainingData, keep_data

SMALL = [
    "autoencoder.loop.steps=3",
    "autoencoder.batch=2",
    "autoencoder.crop=[32, 32]",
    "autoencoder.model={latent_channels: 4, encoder_widths: [8, 8], decoder_widths: [8, 8]}",
    "autoencoder.model.separable=true",
    "training.loop.steps=4",
    "training.loop.validate_every=2",
    "training.loop.save_every=2",
    "training.batch=2",
    "training.crop=[64, 64]",
    "training.task={decoder_joins: 2}",
]
CONFIG = Path(__file__).parents[2] / "config" / "train" / "camseg-lite-camvid.yaml"


def command(root: Path, *extra: str) -> list[str]:
    settings = [f"--set={setting}" for setting in (f"model={root / 'tiny.json'}", *SMALL)]
    folders = ["--data", str(root / "data"), "--run", str(root / "run"), "--out", str(root / "out")]
    return ["train", "--config", str(CONFIG), *folders, *settings, *extra]


def train(root: Path, *extra: str) -> None:
    main(command(root, *extra))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_camvid(tmp_path / "data", "train", "val", size=(64, 96))
    save_config(tiny_lite().config, tmp_path / "tiny.json")
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a finished training, which several tests read."""
    root = tmp_path_factory.mktemp("trained")
    write_camvid(root / "data", "train", "val", size=(64, 96))
    save_config(tiny_lite().config, root / "tiny.json")
    train(root)
    return root


@pytest.fixture
def borrows(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in this process take the graphs of `trained` instead of exporting their own."""
    monkeypatch.setattr(borrowed_graphs.EXPORT, borrowed_graphs.borrowed(trained / "out"))


def test_a_long_command_is_in_lines_that_a_shell_reads_as_one() -> None:
    arguments = ["--set", "a=it's", *(f"--data={'x' * 30}{i}" for i in range(9)), "--license"]
    arguments += ["one -- two --three " * 5, "--", "-v", "$HOME \\"]
    lines = in_lines(f"printf '%s|' {shlex.join(arguments)}")
    assert max(len(line) for line in lines.splitlines()) <= 120
    assert len(lines.splitlines()) > 3
    said = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, check=True).stdout
    assert said == "".join(f"{each}|" for each in arguments)


@pytest.mark.slow
def test_one_command_goes_from_frames_to_a_checkpoint_with_its_card(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = trained
    out, folder = root / "out", root / "run"
    card = (out / "MODEL_CARD.md").read_text(encoding="utf-8")
    scores = json.loads((folder / "val" / "report.json").read_text(encoding="utf-8"))["scores"]
    assert f"mean IoU **{scores['mean_iou']:.3f}**" in card
    curve = [
        json.loads(line)
        for line in (folder / "transformer" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    validations = [entry for entry in curve if "validation" in entry]
    assert [entry["step"] for entry in validations] == [2, 4]
    for entry in validations:
        one, ten = entry["validation"]["mIoU"], entry["validation"]["mIoU with 10 steps"]
        assert f"| {entry['step']} | {one:.3f} | {ten:.3f} |" in card
    computed = "bf16" if computes_bf16("cpu") else "fp32, as this processor has no bf16"
    assert f"batches of 2 (CPU, {computed}, 1 process)" in " ".join(card.split())
    assert "$" not in card
    assert card.startswith("# run\n")  # the folder's name, not the configuration's
    assert Segmenter.from_pretrained(out).name == "run"
    assert f"    camseg {shlex.join(command(root))}\n" in card.replace(" \\\n        ", " ")
    assert "      crop: [64, 64]\n" in card  # as --set has it
    assert "| `camvid`: CamVid with 11 classes | 3 | 3 | 96×64 | 100 % | 11 classes" in card
    assert "Licence of these weights: **not stated** (`--license`)." in card
    assert "Every class occurs in the training frames." in card
    assert not {"Cambridge", "camseg-lite", "research"} & {*re.findall(r"[\w-]+", card)}
    picture = cv2.imread(str(folder / "transformer" / "pictures" / "step-000004.jpg"))
    assert picture.shape == (64, 3 * 96, 3)  # every fifth of three frames is one
    segmentation = Segmenter.from_pretrained(out).segment(np.zeros((64, 96, 3), np.uint8))
    assert set(np.unique(segmentation.mask)) <= {label.id for label in tiny_lite().labels}

    # a finished run that is started again has no steps left, and writes the same model
    stored = (out / "model.safetensors").read_bytes()
    monkeypatch.setattr(borrowed_graphs.EXPORT, borrowed_graphs.borrowed(out))
    old = out / "onnx" / "fp16" / "decoder.onnx"  # of an earlier model, say
    old.parent.mkdir()
    old.write_bytes(b"old")
    train(root)
    assert (out / "model.safetensors").read_bytes() == stored
    assert not old.exists()

    with pytest.raises(SystemExit) as exit_code:
        train(root, "--set=training.loop.lr=0.5")
    assert exit_code.value.code == 2
    assert "config.yaml differs from the configuration given" in capsys.readouterr().err


@pytest.mark.slow
def test_a_trained_model_is_distilled_into_a_folder_whose_card_describes_both_trainings(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = trained
    config = CONFIG.with_name("distill.yaml")
    small = [
        setting for setting in SMALL if setting.startswith("training.") and "task" not in setting
    ]
    folders = [
        f"--data={root / 'data'}",
        f"--run={root / 'run-distill'}",
        f"--out={root / 'distilled'}",
    ]
    arguments = [
        "distill",
        f"--model={root / 'out'}",
        f"--config={config}",
        *folders,
        "--set=data=camvid",
        *[f"--set={setting}" for setting in small],
    ]
    main(arguments)
    card = (root / "distilled" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("# run-distill\n")
    assert CamSeg.from_pretrained(root / "distilled").config.name == "run-distill"
    assert f"    camseg distill --model={root / 'out'}" in card
    assert "`run`, fine-tuned in 4 steps with batches of 2" in card
    assert "### The model that it was fine-tuned from\n\n    camseg train " in card
    assert card.index("camseg distill --model") < card.index("camseg train --config")
    assert card.count("## Limits") == card.count("## Figures") == 1
    assert all(
        (root / "run-distill" / f"val-{steps}-steps" / "report.json").is_file()
        for steps in (2, 4, 10)
    )
    before, after = (load_file(root / name / "model.safetensors") for name in ("out", "distilled"))
    assert any(not np.array_equal(before[name], after[name]) for name in before)

    arguments = [each for each in arguments if not each.startswith("--run=")]
    with pytest.raises(SystemExit):
        main([*arguments, "--set=training.task.chains=[1]", f"--run={root / 'another'}"])
    assert "chains must be a list of numbers of steps >= 2, got [1]" in capsys.readouterr().err


@pytest.mark.slow
def test_an_autoencoder_trained_alone_serves_a_training(
    root: Path, borrows: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG.with_name("mask-autoencoder.yaml")
    small = [
        setting.replace("autoencoder.", "mask.", 1)
        for setting in SMALL
        if setting.startswith("autoencoder.")
    ]
    codec = root / "codec"
    arguments = [
        "--data",
        str(root / "data"),
        "--run",
        str(root / "run-codec"),
        "--out",
        str(codec),
    ]
    main(
        [
            "train-autoencoder",
            "--config",
            str(config),
            *arguments,
            "--set=data=camvid",
            "--set=mask.model.classes=11",
            *[f"--set={setting}" for setting in small],
        ]
    )
    assert 0 <= json.loads((codec / "val.json").read_text(encoding="utf-8"))["mean_iou"] <= 1
    train(root, f"--autoencoder={codec}", "--set=training.task.decoder_joins=100")
    assert not (root / "run" / "autoencoder").exists()
    trained = CamSeg.from_pretrained(root / "out")
    assert trained.mask_autoencoder is not None
    for name, tensor in load_file(codec / "model.safetensors").items():
        kept = trained.mask_autoencoder.state_dict()[name]
        np.testing.assert_allclose(kept.numpy(), tensor.numpy(), rtol=1e-3, atol=1e-3, err_msg=name)

    other = root / "other codec"
    shutil.copytree(codec, other)
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, other / "model.safetensors")
    for more in ([f"--autoencoder={other}"], []):
        with pytest.raises(SystemExit):
            train(root, "--set=training.task.decoder_joins=100", *more)
        assert f"--autoencoder must be that of {root / 'run'}" in capsys.readouterr().err

    with pytest.raises(SystemExit):
        main(
            [
                "train",
                f"--config={CONFIG}",
                f"--data={root / 'data'}",
                f"--run={root / 'other'}",
                f"--out={root / 'o'}",
                f"--autoencoder={codec}",
            ]
        )
    assert "train an autoencoder of that size" in capsys.readouterr().err


@pytest.mark.parametrize("held", ["model.safetensors", "config.json", "MODEL_CARD.md", "onnx/fp32"])
def test_a_model_that_the_run_did_not_write_is_refused_before_the_work(
    root: Path, held: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "out" / held).mkdir(parents=True) if "onnx" in held else (root / "out").mkdir()
    if "onnx" not in held:
        (root / "out" / held).write_text("of another model")
    with pytest.raises(SystemExit) as ended:
        train(root)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"--out {root / 'out'} must not hold a model that {root / 'run'} has not written" in said
    assert f"got {root / 'out' / held.partition('/')[0]}: name another folder" in said
    assert not (root / "run" / "config.yaml").exists()
    assert (root / "out" / held).exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_share_the_whole_command(root: Path, trained: Path, strategy: str) -> None:
    strategies = [f"--set={part}.loop.strategy={strategy}" for part in ("autoencoder", "training")]
    camseg: list[object] = ["-m", "camseg_core.cli", "--"]
    if strategy == "fsdp":  # one of the two exports: that is the same for both
        camseg = [borrowed_graphs.__file__, "--", trained / "out"]
    done = run(torchrun(2, *camseg, *command(root, *strategies)), timeout=280)
    assert done.returncode == 0, done.stderr
    assert (root / "out" / "MODEL_CARD.md").is_file()
    assert "2 processes" in (root / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    Segmenter.from_pretrained(root / "out").segment(np.zeros((64, 96, 3), np.uint8))


def test_a_wrong_configuration_is_refused_before_anything_is_kept(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for change, message in (
        (
            "training.crop=[64, 80]",
            "both sides of training.crop must be multiples of 32 for tiny-lite, got [64, 80]",
        ),
        (
            "training.augment=flip",
            "augment must be crop or vary for a model with a mask autoencoder, got flip",
        ),
        ("autoencoder.model.latent_channels=5", "give both the same sizes"),
    ):
        with pytest.raises(SystemExit):
            train(root, f"--set={change}")
        assert message in capsys.readouterr().err
        assert not (root / "run" / "config.yaml").exists()
        assert not (root / "run" / "autoencoder").exists()


def rewrite_image(root: Path) -> None:
    path = root / "train/images/0001TP_000002.jpg"
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))


def rewrite_label(root: Path) -> None:
    path = root / "val/labels/0001TP_000002.png"
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[0, 0] = (label[0, 0] + 1) % 11
    cv2.imwrite(str(path), label)


def remove_frame(root: Path) -> None:
    for path in root.glob("train/*/0001TP_000000.*"):
        path.unlink()


def rename_frame(root: Path) -> None:
    for path in root.glob("val/*/0001TP_000000.*"):
        path.rename(path.with_stem("0001TP_000007"))


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (rewrite_image, "frames of train must .*: 3 then, 3 now; names, pixels, labels or"),
        (rewrite_label, "frames of val must be those that .*run was started with: 3 then, 3 now"),
        (
            remove_frame,
            "frames of train must .*: 3 then, 2 now; .*: restore them, or choose another",
        ),
        (rename_frame, "frames of val must .*: 3 then, 3 now"),
    ],
)
def test_a_run_is_not_resumed_with_other_frames(
    root: Path,
    held: bool,
    change: Callable[[Path], None],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not held:
        monkeypatch.setattr(joined.load_frames, "__defaults__", (0,))
    (root / "run").mkdir()
    found = TrainingData.load("camvid", root / "data")
    assert isinstance(found.train, HeldFrames if held else ReadFrames)
    for _ in range(2):
        keep_data(TrainingData.load("camvid", root / "data"), root / "run", Processes())
    change(root / "data")
    with pytest.raises(ConfigError, match=text):
        keep_data(TrainingData.load("camvid", root / "data"), root / "run", Processes())


def test_a_run_is_not_resumed_with_labels_of_another_meaning(root: Path) -> None:
    data, path = TrainingData.load("camvid", root / "data"), root / "run" / "data.json"
    path.parent.mkdir()
    keep_data(data, path.parent, Processes())
    record = json.loads(path.read_text(encoding="utf-8"))
    for part in (part for split in record.values() for part in split.values()):
        part.pop("groups")
    path.write_text(json.dumps(record), encoding="utf-8")
    keep_data(data, path.parent, Processes())  # an older version wrote less
    next(iter(record["train"].values()))["groups"] = [[0, 1]]
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ConfigError, match="labels or their meaning differ"):
        keep_data(data, path.parent, Processes())


@pytest.mark.slow
def test_the_command_does_not_resume_with_other_frames(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "data", tmp_path / "data")
    settings = [f"--set={setting}" for setting in (f"model={trained / 'tiny.json'}", *SMALL)]
    folders = [f"--{name}={tmp_path / name}" for name in ("data", "run", "out")]
    rewrite_image(tmp_path / "data")
    with pytest.raises(SystemExit):
        main(["train", f"--config={CONFIG}", *folders, *settings])
    assert "3 then, 3 now; names, pixels, labels or their meaning" in capsys.readouterr().err


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_a_labelled_pixel_is_refused_before_the_first_step(
    root: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (root / "data" / split / "labels").iterdir():
        cv2.imwrite(str(path), np.full((64, 96), 11, np.uint8))  # void
    with pytest.raises(SystemExit) as ended:
        train(root)
    assert ended.value.code == 2
    expected = f"no pixel of the 3 frames of {split} has one of the model's classes (sky, building"
    assert expected in capsys.readouterr().err
    assert not (root / "run" / "config.yaml").exists()


@pytest.mark.slow
def test_the_card_of_weights_alone_says_what_is_known(root: Path) -> None:
    """A class that no frame shows, frames of several sizes, a licence, a name; no graphs."""
    for split in ("train", "val"):
        for path in (root / "data" / split / "labels").iterdir():
            label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            label[label == 8] = 3  # no car
            cv2.imwrite(str(path), label)
    for path in (root / "data" / "train").glob("*/*"):
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), cv2.resize(picture, (80, 70), interpolation=cv2.INTER_NEAREST))
    of_other_weights = replace(
        tiny_lite().config, logit_scale=1.5, noise_filter=True, max_upscale=3.0
    )
    save_config(of_other_weights, root / "tiny.json")
    (root / "out").mkdir()
    (root / "out" / "notes.txt").write_text("mine")
    train(root, "--name=town", "--license=CC-BY-4.0, Town", "--no-export")
    assert {path.name for path in (root / "out").iterdir()} == {
        *("MODEL_CARD.md", "config.json", "labels.json", "model.safetensors", "notes.txt")
    }
    config = CamSeg.from_pretrained(root / "out").config
    assert (config.name, config.logit_scale, config.noise_filter) == ("town", 1, True)
    card = (root / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith("# town\n")
    assert config.max_upscale == 3
    assert "; scaled down or, at most 3 times, up to about " in card
    assert "| Noise filter | before the network, of salt and pepper and" in card
    assert "Licence of these weights: CC-BY-4.0, Town." in card
    assert "| 3 | 3 | 80×70 to 96×64 (2 sizes) | 100 % | 11 classes" in card
    assert "No training frame shows car: the model has not learned these." in card
    assert "Nothing was measured" in card
    uncalibrated = "The confidence is not calibrated: `camseg calibrate` does that."
    assert uncalibrated in " ".join(card.split())
    assert not {"nan", "None"} & {*re.findall(r"\w+", card)}


@pytest.mark.slow
def test_class_offsets_are_in_the_weights_and_on_the_card(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(root, "--no-export")
    before = load_file(root / "out" / "model.safetensors")
    assert "offsets were added" not in (root / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    monkeypatch.setattr(class_offsets, "LEAST_FRAMES", 3)
    train(root, "--no-export")  # no steps are left
    after = load_file(root / "out" / "model.safetensors")
    changed = [name for name in before if not np.array_equal(before[name], after[name])]
    (name,) = changed
    offsets = (after[name] - before[name]).view(-1, 4)[:, 0].tolist()
    card = " ".join((root / "out" / "MODEL_CARD.md").read_text(encoding="utf-8").split())
    named = [
        f"{label.name} {offset:+g}"
        for label, offset in zip(tiny_lite().labels, offsets, strict=True)
        if offset
    ]
    assert f"added to the logits of the classes: {', '.join(named)}." in card
    assert "on 3 frames of `train`" in card


def test_a_name_that_is_no_word_is_refused_before_the_work(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        train(root, "--name=my model")
    expected = "--name must be letters, digits and ._+-, at most 64, got 'my model'"
    assert expected in capsys.readouterr().err
    assert not (root / "run").exists()
    assert About().name_for(Path("/runs/my town!")) == "my-town"
    assert About().name_for(Path("/")) == "model"
    assert About("town").name_for(Path("/runs/other")) == "town"


@pytest.mark.slow
def test_the_card_has_the_scores_of_the_stored_autoencoder(root: Path, borrows: None) -> None:
    """The decoder learns along, and what is averaged, stored and scored is one and the same."""
    train(root, "--set=training.task.decoder_joins=0", "--set=training.loop.lr=0.05")
    stored = CamSeg.from_pretrained(root / "out")
    val = Frames.load(open_set("camvid", root / "data", "val").samples, stored.labels)
    assert stored.mask_autoencoder is not None
    ceiling = reconstruction_confusion(stored.mask_autoencoder, val).labelled_mean_iou()
    card = (root / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    said = float(card.split("keep a mean IoU of ")[1].split(":")[0])
    assert said == pytest.approx(ceiling, abs=0.006)  # stored in fp16


def test_a_model_whose_graphs_differ_from_torch_is_kept_without_them(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(_: object, out: Path, *__: object) -> None:
        (out / "onnx" / "int8").mkdir(parents=True)  # written before
        raise ModelError("the exported decoder differs from torch; the graph is not kept")

    monkeypatch.setattr(borrowed_graphs.EXPORT, refused)
    train(root)
    assert not (root / "out" / "onnx").exists()
    assert CamSeg.from_pretrained(root / "out").config.name == "run"
    card = (root / "out" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "Nothing was measured: the exported decoder differs from torch;" in card
    warned = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert warned[-1] == (
        "neither exported, scored nor calibrated (logit_scale 1); to do so: "
        f"camseg export, evaluate and calibrate, with --model {root / 'out'}"
    )


def test_a_model_of_one_class_is_refused_before_the_first_step(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every pixel would get it, with a confidence of 1 and perfect scores."""
    (root / "data" / "labels.yaml").write_text(
        "- {id: 0, name: free space, color: [1, 2, 3], was: [road]}\n"
    )
    with pytest.raises(SystemExit):
        train(root, "--dataset", "folder")
    assert "must have at least two classes, got only free space" in capsys.readouterr().err


def test_one_sample_of_one_cell_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train(root, "--set=training.batch=1", "--set=training.crop=[32, 32]")
    assert "crop must be larger than 32×32 pixels for one sample" in capsys.readouterr().err


def test_an_autoencoder_of_other_classes_is_refused(tmp_path: Path) -> None:
    codec = tiny_lite().mask_autoencoder
    assert codec is not None
    classes = CITYSCAPES[: codec.config.classes]
    save_codec(codec, tmp_path, classes)
    load_codec_into(codec, tmp_path, classes)
    with pytest.raises(ModelError, match="but class 1 is road there, and .* here: train one on"):
        load_codec_into(codec, tmp_path, classes[::-1])
    (tmp_path / "labels.json").unlink()  # as older versions wrote it
    load_codec_into(codec, tmp_path, classes[::-1])


def test_a_run_resumes_where_class_table_and_labels_have_moved() -> None:
    def recipe(folder: str) -> FinetuneRecipe:
        sets = (SetConfig("own", "folder", labels=f"{folder}/masks"),)
        return FinetuneRecipe(data=sets, classes=f"{folder}/labels.yaml")

    assert differences(recipe("/a"), recipe("/b")) == ""
    assert "classes" in differences(recipe("/a"), replace(recipe("/a"), classes="/a/other.yaml"))


def test_a_log_that_cannot_be_written_is_said_once_and_the_run_goes_on(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "run").mkdir()
    (root / "run" / "train.log").symlink_to("/dev/full")
    train(root, "--no-export")
    err = capsys.readouterr().err
    assert err.count("No space left on device; the log goes on without it") == 1
    assert "Logging error" not in err
    assert (root / "out" / "model.safetensors").is_file()
