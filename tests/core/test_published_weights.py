"""Published files become checkpoint folders; errors list everything that does not fit."""

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import published
import published_files
import pytest
import reference
import torch
from as_published import segment_as_published
from camvid_folder import write_camvid
from safetensors.torch import load_file
from torch import Tensor

from camseg_core.cli.main import main
from camseg_core.config.model import load_config
from camseg_core.labels import UNLABELLED
from camseg_core.model.camseg import CamSeg, stored_type
from camseg_core.weights import CAM_SEG_BASE_768
from camseg_core.weights.published import published_shapes

T = reference.tensors()


class Files:
    """The two published files in a folder, and the command that imports them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.autoencoder, self.transformer = published_files.write_files(folder)
        self.config = published_files.config_file(folder)
        self.out = folder / "imported"

    def save_transformer(self, **changes: Any) -> None:
        torch.save(published_files.transformer_content(**changes), self.transformer)

    def save_autoencoder(self, state: dict[str, Tensor]) -> None:
        torch.save(
            published_files.autoencoder_content(self.folder / "sprung", state), self.autoencoder
        )

    def imported(self, *options: str) -> Path:
        both = ("--autoencoder", str(self.autoencoder), "--transformer", str(self.transformer))
        main(
            [
                "weights",
                "import",
                *both,
                "--config",
                str(self.config),
                "--out",
                str(self.out),
                *options,
            ]
        )
        assert not (self.folder / "sprung").exists(), "an object in the file was brought to life"
        return self.out


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def refused(capsys: pytest.CaptureFixture[str], files: Files, *options: str) -> str:
    """What the import says when it ends in an error."""
    with pytest.raises(SystemExit) as end:
        files.imported(*options)
    assert end.value.code == 2
    assert not files.out.exists() or not list(files.out.iterdir())
    return capsys.readouterr().err.removeprefix("camseg: error: ").rstrip("\n")


# what comes out


def test_the_full_size_names_and_shapes_are_the_published_ones() -> None:
    autoencoder, transformer = published_shapes(CAM_SEG_BASE_768)
    assert {n: list(s) for n, s in autoencoder.items()} == reference.published_shapes(
        "autoencoder_kl_f16"
    )
    assert {n: list(s) for n, s in transformer.items()} == reference.published_shapes(
        "transformer_base_768"
    )


def test_imported_weights_give_the_reference_tensors(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    model = CamSeg.from_pretrained(files.imported())
    result = segment_as_published(
        model,
        (T["e2e_image"] * 0.5 + 0.5) * 255,
        T["e2e_init"],
        lambda k: T["e2e_noise"][k],
        steps=10,
    )
    torch.testing.assert_close(result.picture, T["e2e_rgb"], atol=1e-3, rtol=0)
    assert torch.equal(
        result.train_ids[0].long(),
        torch.where(T["e2e_class_ids"] == 0, UNLABELLED, T["e2e_class_ids"] - 1),
    )
    assert load_config(files.out / "config.json") == published_files.config()
    said = capsys.readouterr().out
    assert "img_size=4096 lr=0.0001 model=mar_base" in said
    assert "2 tensors of the autoencoder's training loss left out" in said


@pytest.mark.slow
def test_an_imported_model_exports_and_evaluates(files: Files, tmp_path: Path) -> None:
    folder = files.imported()
    main(["export", "--model", str(folder)])
    data, out = write_camvid(tmp_path / "camvid", "val", frames=2), tmp_path / "scores"
    main(
        [
            "evaluate",
            "--data",
            str(data),
            "--model",
            str(folder),
            "--out",
            str(out),
            "--sampler",
            "ddim",
            "--steps",
            "2",
        ]
    )
    report = json.loads((out / "report.json").read_text())
    assert 0 <= report["scores"]["pixel_accuracy"] <= 1
    assert (out / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("kind", ["dict", "list", "parameters"])
def test_ema_takes_the_running_average_of_the_transformer_alone(files: Files, kind: str) -> None:
    average = {name: tensor + 1 for name, tensor in published_files.transformer_state().items()}
    listed = (
        list(average.values())
        if kind == "list"
        else [torch.nn.Parameter(each) for each in average.values()]
    )
    files.save_transformer(ema=average if kind == "dict" else listed)
    found = load_file(files.imported("--ema") / "model.safetensors")
    for name, tensor in reference.published_state().items():
        assert torch.equal(
            found[name], tensor if name.startswith("autoencoder.") else tensor + 1
        ), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_in_half_precision_are_taken_and_stored_as_fp32(
    files: Files, dtype: torch.dtype
) -> None:
    files.save_transformer(
        state={name: each.to(dtype) for name, each in published_files.transformer_state().items()}
    )
    found = load_file(files.imported() / "model.safetensors")
    for name, tensor in reference.published_state().items():
        assert found[name].dtype == torch.float32
        assert torch.equal(
            found[name], tensor if name.startswith("autoencoder.") else tensor.to(dtype).float()
        ), name


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_weights_are_stored_as_asked(files: Files, name: str, dtype: torch.dtype) -> None:
    folder = files.imported("--dtype", name)
    assert stored_type(folder) == dtype
    assert CamSeg.from_pretrained(folder).transformer.mask_token.dtype == torch.float32


def test_the_legacy_format_gives_the_same_weights(files: Files, tmp_path: Path) -> None:
    zipped = load_file(files.imported() / "model.safetensors")
    for path in (files.autoencoder, files.transformer):
        content = published_files.transformer_content()
        if path == files.autoencoder:
            content = published_files.autoencoder_content(files.folder / "sprung")
        torch.save(content, path, _use_new_zipfile_serialization=False)
    files.out = tmp_path / "legacy"
    legacy = load_file(files.imported() / "model.safetensors")
    assert legacy.keys() == zipped.keys()
    assert all(torch.equal(legacy[name], zipped[name]) for name in zipped)


# what does not fit


def test_settings_and_names_in_a_file_cannot_write_to_the_terminal(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    content = published_files.transformer_content()
    content["args"] = argparse.Namespace(
        **{"a\x1b[2J": "b\x1b]0;c\x07", "large": 10**5000, "surrogate": "\ud800"}
    )
    torch.save(content, files.transformer)
    files.imported()
    said = capsys.readouterr().out
    assert "'a\\x1b[2J'='b\\x1b]0;c\\x07' large=0x" in said
    assert "\x1b" not in said
    content["model"] |= {10**5000: torch.zeros(1)}
    torch.save(content, files.transformer)
    files.out = files.folder / "again"
    assert "unexpected: 1" in refused(capsys, files)


def test_all_differences_of_both_files_are_listed_at_once(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    autoencoder, transformer = (
        published_files.autoencoder_state(),
        published_files.transformer_state(),
    )
    del autoencoder["quant_conv.bias"]
    autoencoder["quant_conv.scale"] = torch.zeros(1)
    autoencoder["bad\x1b[2Jname"] = torch.zeros(1)
    for block in (0, 1):
        transformer[f"encoder_blocks.{block}.norm1.weight"] = torch.zeros(3)
        del transformer[f"decoder_blocks.{block}.attn.qkv.bias"]
    transformer["mask_token"] = torch.zeros(1, 1, 64, dtype=torch.int64)
    transformer["z_proj_ln.weight"] = published_files.Callback(files.folder / "sprung")  # type: ignore[assignment]
    files.save_autoencoder(autoencoder)
    files.save_transformer(state=transformer, ema={})
    lines = refused(capsys, files).splitlines()
    assert lines == [
        f"{files.autoencoder} does not hold the autoencoder of this configuration",
        f"  missing: 1 of {len(published_files.autoencoder_state())}",
        "    quant_conv.bias",
        "  unexpected: 2",
        "    quant_conv.scale",
        "    'bad\\x1b[2Jname'",
        f"{files.transformer} does not hold the transformer of this configuration",
        f"  missing: 2 of {len(published_files.transformer_state())}",
        "    decoder_blocks.{0,1}.attn.qkv.bias",
        f"  not as wanted: 4 of {len(published_files.transformer_state())}",
        "    mask_token: numbers of LongStorage, not floating-point ones",
        "    z_proj_ln.weight: an object of posix.system, not a tensor",
        "    encoder_blocks.{0,1}.norm1.weight: [3] where [64] is expected",
    ]


def test_another_width_is_said_to_be_one(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    config = published_files.config()
    files.config = published_files.config_file(
        files.folder, replace(config, transformer=replace(config.transformer, width=128))
    )
    said = refused(capsys, files)
    assert (
        "city768.16.pth does not hold the transformer of this configuration: "
        "the file seems to be of a model of another size" in said
    )
    assert re.search(
        r"encoder_blocks\.\{0,1\}\.norm1\.weight: \[64\] where \[128\] is expected", said
    )


def test_without_a_configuration_the_published_size_is_wanted(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(
            [
                "weights",
                "import",
                "--autoencoder",
                str(files.autoencoder),
                "--transformer",
                str(files.transformer),
                "--out",
                str(files.out),
            ]
        )
    assert (
        "encoder_pos_embed_learned: [1, 72, 64] where [1, 4608, 768] is expected"
        in capsys.readouterr().err
    )


def test_swapped_files_are_recognised(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    files.autoencoder, files.transformer = files.transformer, files.autoencoder
    said = refused(capsys, files)
    assert (
        "city768.16.pth looks like the transformer's file, not the autoencoder's: "
        "are --autoencoder and --transformer swapped?" in said
    )


def test_a_file_without_the_running_average_is_named(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    content = published_files.transformer_content()
    del content["model_ema"]
    torch.save(content, files.transformer)
    assert (
        "city768.16.pth has no running average of the weights ('model_ema'): leave --ema out"
        in refused(capsys, files, "--ema")
    )
    files.save_transformer(ema=[torch.zeros(1)])
    assert "'model_ema' lists 1 tensors, but 'model' has" in refused(capsys, files, "--ema")


def test_a_running_average_in_another_order_is_noticed_by_its_shapes(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    files.save_transformer(ema=list(published_files.transformer_state().values())[::-1])
    assert "not as wanted" in refused(capsys, files, "--ema")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"weights": {}}, "is not a published transformer: 'model' is missing; it has weights"),
        (
            {"model": [torch.zeros(1)]},
            "is not a published transformer: 'model' is a list; it has model",
        ),
        ([1, 2], "is not a published transformer: it holds a list, not a dict with 'model'"),
        (
            torch.nn.Linear(1, 1),
            "it holds an object of torch.nn.modules.linear.Linear, not a dict with 'model'",
        ),
    ],
)
def test_another_kind_of_checkpoint_is_named_in_the_error(
    files: Files, capsys: pytest.CaptureFixture[str], content: object, reason: str
) -> None:
    torch.save(content, files.transformer)
    assert reason in refused(capsys, files)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "cannot read .*city768.16.pth: No such file or directory"),
        (
            lambda path: path.write_text("<!doctype html><title>CAM-Seg"),
            "city768.16.pth is not a file of torch.save: it is a web page",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-5000]),
            "city768.16.pth is cut short or damaged .*: download it again",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(
    files: Files, capsys: pytest.CaptureFixture[str], spoil: Any, reason: str
) -> None:
    spoil(files.transformer)
    said = refused(capsys, files)
    assert re.search(reason, said)
    assert "\n" not in said


def test_weights_that_are_not_finite_are_refused(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    state = published_files.transformer_state()
    state["z_proj1.weight"][0, 0] = torch.nan
    files.save_transformer(state=state)
    assert "z_proj1.weight has numbers that are NaN or infinite" in refused(capsys, files)
    state["z_proj1.weight"][0, 0] = 1e6
    files.save_transformer(state=state)
    assert "z_proj1.weight has numbers too large for fp16: take --dtype bf16 or fp32" in refused(
        capsys, files, "--dtype", "fp16"
    )


def test_a_folder_that_cannot_be_written_to_is_named(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    files.out = files.transformer / "below-a-file"
    assert "below-a-file must be a folder that can be written to: Not a dir" in refused_anywhere(
        capsys, files
    )


def test_a_folder_with_files_in_it_is_left_alone(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    (files.out / "onnx").mkdir(parents=True)
    assert f"--out {files.out} is not empty: name a new folder" in refused_anywhere(capsys, files)
    assert [path.name for path in files.out.iterdir()] == ["onnx"]


def refused_anywhere(capsys: pytest.CaptureFixture[str], files: Files) -> str:
    with pytest.raises(SystemExit):
        files.imported()
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"light_decoder": published.LIGHT},
        {"transformer": replace(published.TINY.transformer, fusion="grid")},
    ],
    ids=["light", "grid"],
)
def test_a_configuration_of_another_layout_is_refused(
    files: Files, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    files.config = published_files.config_file(files.folder, replace(published.TINY, **change))
    assert "tiny-published does not have the published layout" in refused(capsys, files)


def test_the_list_names_bundled_and_published_models(capsys: pytest.CaptureFixture[str]) -> None:
    main(["weights", "list"])
    said = capsys.readouterr().out
    assert re.search(r"camseg-lite +bundled +\d+ MB +.*research use", said)
    assert re.search(r"cam-seg-base-768 +published +1147 MB +not known here", said)
    assert "mahmed10/CAM-Seg" in said
