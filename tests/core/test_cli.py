"""The command line: its output, its one-line errors, and the packages that it needs."""

import argparse
import importlib.metadata
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from camvid_folder import DAMAGES, Damage, write_camvid
from processes import running

import camseg_core
from camseg_core.cli import main as cli
from camseg_core.cli.console import how_to_install
from camseg_core.cli.main import main
from camseg_core.cli.options import packages_for
from camseg_core.cli.train import configuration_file, training_run
from camseg_core.errors import ConfigError
from camseg_core.training.trainer import Stopped

ROOT = Path(__file__).parents[2]

CONFIGS = Path(__file__).parents[2] / "config" / "train"
TRAINING_ONLY = (
    "torch",
    "torchvision",
    "safetensors",
    "onnx",
    "yaml",
    "rich",
    "tensorboard",
    "jinja2",
    "matplotlib",
)
TINY = [
    "mask.model.encoder_widths=[8, 8]",
    "mask.model.decoder_widths=[8, 8]",
    "mask.batch=2",
    "mask.crop=[32, 64]",
]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail with code 2 and one line, and return that line's message."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if "error: " in line and line.startswith("camseg")]
    assert errors == lines[-1:], lines
    return errors[0].partition("error: ")[2]


def training(command: str, root: Path, *changes: str) -> list[str]:
    """Return the arguments of a training in `root`, on the data in `root/data`."""
    name = "camseg-lite-camvid" if command == "train" else "mask-autoencoder"
    config = CONFIGS / f"{name}.yaml"
    if command == "train-autoencoder":
        changes = ("data=camvid", "mask.model.classes=11", *changes)
    folders = ["--data", str(root / "data"), "--run", str(root / "run"), "--out", str(root / "out")]
    return [
        command,
        "--config",
        str(config),
        *folders,
        *(part for change in changes for part in ("--set", change)),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_bad_data_ends_an_evaluation_with_one_line(
    tmp_path: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    damage.spoil(write_camvid(tmp_path / "data", "train", "val") / "train")
    arguments = [
        "evaluate",
        "--data",
        str(tmp_path / "data"),
        "--split",
        "train",
        "--out",
        str(tmp_path / "out"),
        "--threads",
        "1",
    ]
    assert re.search(damage.message, error_of(arguments, capsys))


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_bad_data_ends_a_training_with_one_line(
    tmp_path: Path, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    damage.spoil(write_camvid(tmp_path / "data", "train", "val") / "train")
    assert re.search(damage.message, error_of(training("train", tmp_path), capsys))


@pytest.mark.parametrize("command", ["train", "train-autoencoder"])
def test_a_training_without_validation_frames_is_refused(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_camvid(tmp_path / "data", "train")
    assert re.match(
        r"no split 'val' in .*, which has train: expected in ROOT SPLIT/images",
        error_of(training(command, tmp_path), capsys),
    )


@pytest.mark.parametrize("command", ["train", "train-autoencoder"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data=kitti", "data set must be one of camvid"),
        ("banana=1", "--set banana=1: unknown entries banana"),
    ],
)
def test_a_wrong_setting_is_one_line(
    tmp_path: Path, command: str, change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_camvid(tmp_path / "data", "train", "val")
    assert error_of(training(command, tmp_path, change), capsys).startswith(message)


@pytest.mark.parametrize("command", ["train", "train-autoencoder"])
def test_a_wrong_configuration_leaves_nothing_behind(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = training(command, tmp_path, "data=[")
    assert error_of(arguments, capsys).startswith("--set data=[: ")
    arguments[2] = str(tmp_path / "absent.yaml")
    assert (
        error_of(arguments, capsys)
        == f"cannot read the configuration {tmp_path / 'absent.yaml'}: No such file or directory"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["run", "out"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_training(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / option).write_text("a file")
    assert (
        error_of(training("train", tmp_path), capsys)
        == f"--{option} {tmp_path / option} must be a folder that can be written to: it is a file; "
        "name another"
    )


def test_a_stopped_run_exits_with_130_and_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(run_folder=tmp_path / "run", out=tmp_path / "out")
    with pytest.raises(SystemExit) as caught, training_run(options):
        raise Stopped("stopped after step 3")
    assert caught.value.code == 130
    assert capsys.readouterr().err == "camseg: stopped after step 3\n"


def test_only_the_first_of_several_processes_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = argparse.Namespace(run_folder=tmp_path / "run", out=tmp_path / "out")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        with training_run(options):
            logging.getLogger("camseg_core.training").warning("from rank %s", rank)
    assert (tmp_path / "run" / "train.log").read_text().endswith(" from rank 0\n")
    assert "from rank 1" not in (tmp_path / "run" / "train.log").read_text()
    assert re.fullmatch(r"\S+ \S+ from rank 0\n", capsys.readouterr().err)
    assert str(tmp_path) not in str(logging.getLogger().handlers)  # afterwards nothing goes there


@pytest.mark.parametrize("command", ["train", "train-autoencoder", "distill-decoder"])
def test_the_help_of_a_training_says_how_to_resume_stop_and_share_it(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in (
        "The same command with the same --run resumes",
        "Ctrl-C",
        f"torchrun --nproc-per-node N -m camseg_core.cli -- {command} ",
    ):
        assert words in text


@pytest.mark.parametrize("option", ["--utilisation", "--device-tflops", "--device-memory"])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_rate_or_memory_of_zero_or_less_is_refused(
    option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--config", "x.yaml", "--dry-run", option, value])
    assert caught.value.code == 2
    assert re.search(
        rf"{option}: must be a number > 0( and <= 1)?, got '{value}'", capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "x.yaml", "--frames", "10"],
        ["--from", "camseg-lite", "--dry-run", "--processes", "2"],
        ["--from", "camseg-lite", "--utilisation", "1"],
        ["--config", "x.yaml", "--dry-run", "--device-memory", "8"],
    ],
)
def test_options_of_the_estimate_are_refused_where_they_would_change_nothing(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", *arguments, "--data", "d", "--run", "r", "--out", "o"])
    assert caught.value.code == 2
    assert re.search(
        r"only for the estimate of --dry-run|needs --device-tflops", capsys.readouterr().err
    )


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command_line_loads_nothing_that_only_training_needs() -> None:
    done = python(
        "import sys, camseg_core.cli.main; "
        f"sys.exit(str([name for name in {TRAINING_ONLY} if name in sys.modules]))"
    )
    assert done.stderr.strip() == "[]"


WITHOUT = (
    "import sys; sys.modules[sys.argv.pop(1)] = None; "
    "import camseg_core.cli.main; camseg_core.cli.main.main()"
)
"""The command line without a package: importing it fails."""

NOT_INSTALLED = "which is not installed: pip install '.[train]' in the project's folder"


@pytest.mark.parametrize("package", ["torch", "yaml"])
def test_a_training_without_its_packages_says_how_to_install_them(
    tmp_path: Path, package: str
) -> None:
    done = python(WITHOUT, package, *training("train", tmp_path))
    assert done.returncode == 2
    assert done.stderr == f"camseg: error: training needs {package}, {NOT_INSTALLED}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["torch", "onnx"])
def test_an_export_without_its_packages_says_how_to_install_them(package: str) -> None:
    done = python(WITHOUT, package, "export")
    assert done.returncode == 2
    assert done.stderr == f"camseg: error: export needs {package}, {NOT_INSTALLED}\n"


def test_in_a_sourced_workspace_only_the_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    for module, named in (("rich", "rich"), ("yaml", "pyyaml")):
        missing = ModuleNotFoundError(f"No module named {module!r}", name=module)
        text = how_to_install("evaluation", missing, "evaluate")
        assert text == f"evaluation needs {module}, which is not installed: pip install {named}"


@pytest.mark.parametrize("place", ["venv/share/camseg_ros", "venv"])
def test_shipped_configurations_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    shipped = tmp_path / place / "config/train/finetune.yaml"
    shipped.parent.mkdir(parents=True)
    shipped.touch()
    package = tmp_path / "venv/lib/python3/site-packages/camseg_core/__init__.py"
    monkeypatch.setattr(camseg_core, "__file__", str(package))
    monkeypatch.chdir(tmp_path)
    assert configuration_file("config/train/finetune.yaml") == shipped
    assert configuration_file("finetune.yaml") == Path("finetune.yaml")
    own = tmp_path / "config/train/finetune.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert configuration_file("config/train/finetune.yaml") == Path("config/train/finetune.yaml")


def test_setup_runs_through_a_link_in_another_folder(tmp_path: Path) -> None:
    (tmp_path / "setup.py").symlink_to(ROOT / "setup.py")  # as colcon's --symlink-install does
    done = subprocess.run(
        [sys.executable, "setup.py", "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.split()[-1]) == (0, camseg_core.__version__), done.stderr


def test_onnx_runtime_is_told_not_to_report_over_the_network() -> None:
    code = "import os, camseg_core; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    for given, found in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | given, capture_output=True, text=True
        )
        assert done.stdout.strip() == found, done.stderr


def test_a_missing_submodule_names_its_package_but_one_of_camseg_is_a_bug() -> None:
    with (
        pytest.raises(ConfigError, match="training needs rich, which is not installed"),
        packages_for("training", "train"),
    ):
        raise ModuleNotFoundError("No module named 'rich.console'", name="rich.console")
    with pytest.raises(ModuleNotFoundError), packages_for("training", "train"):
        raise ModuleNotFoundError("No module named 'camseg_core.gone'", name="camseg_core.gone")


def test_options_without_effect_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = tmp_path / "grey.png"
    cv2.imwrite(str(picture), np.full((48, 64, 3), 128, np.uint8))
    given = ["--steps", "8", "--eta", "0.5", "--engine-cache", str(tmp_path / "cache")]
    given += ["--provider", "cpu", "--out", str(tmp_path / "out")]
    main(["segment", str(picture), *given])
    said = [record.getMessage() for record in caplog.records]
    assert [text.partition(" has no effect: ")[0] for text in said] == [
        "--steps 8",
        "--eta 0.5",
        "--engine-cache",
    ]


def test_segmenting_needs_no_torch(tmp_path: Path) -> None:
    frames = write_camvid(tmp_path / "data") / "train" / "images"
    done = python(
        WITHOUT, "torch", "segment", str(frames), "--out", str(tmp_path / "out"), "--threads", "1"
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "mask").iterdir())) == 3


@pytest.mark.slow
def test_a_training_stopped_with_ctrl_c_saves_and_resumes_when_started_again(
    tmp_path: Path,
) -> None:
    write_camvid(tmp_path / "data", "train", "val")
    arguments = training(
        "train-autoencoder",
        tmp_path,
        *TINY,
        "mask.loop.steps=1000000",
        "mask.loop.save_every=1000000",
    )
    stopped_after = []
    for _ in range(2):
        with running(
            [sys.executable, "-m", "camseg_core.cli", *arguments], stderr=subprocess.PIPE
        ) as process:
            wait_for_step(
                tmp_path / "run" / "log.jsonl", process, more_than=max(stopped_after, default=0)
            )
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=120)
        assert process.returncode == 130, said
        found = re.fullmatch(
            r"camseg: stopped after step (\d+) of 1000000 \(SIGINT, .*\); .*", said.splitlines()[-1]
        )
        assert found, said
        stopped_after.append(int(found[1]))
        assert (tmp_path / "run" / "state.safetensors").is_file()
    assert f"at step {stopped_after[0]} of 1000000" in said  # resumed where it was stopped
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(set(steps))
    assert steps[-1] == stopped_after[1] > stopped_after[0]


def wait_for_step(log: Path, process: subprocess.Popen[str], more_than: int) -> None:
    """Wait until the run has logged a step beyond this one."""
    while process.poll() is None:
        lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
        if lines and lines[-1].endswith("\n") and json.loads(lines[-1])["step"] > more_than:
            return
        time.sleep(0.2)
    pytest.fail(f"the training ended by itself: {process.communicate()[1]}")


def register(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a command of another package, as an install does."""
    found = importlib.metadata.EntryPoint("other", value, "camseg.commands")
    monkeypatch.setattr(
        cli, "entry_points", lambda group: [found] if group == "camseg.commands" else []
    )


def greet(parser: argparse.ArgumentParser) -> None:
    """Greet someone."""
    parser.add_argument("name")
    parser.set_defaults(run=lambda options: sys.stdout.write(f"hello {options.name}"))


def test_another_package_adds_a_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(f"{__name__}:greet", monkeypatch)
    main(["other", "you"])
    assert capsys.readouterr().out == "hello you"
    with pytest.raises(SystemExit):
        main(["--help"])
    assert re.search(r"other +greet someone\n", capsys.readouterr().out)


def test_a_command_that_cannot_be_loaded_costs_only_itself(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register("nowhere_to_be_found:add", monkeypatch)
    assert re.match(
        r"the command other cannot be loaded from nowhere_to_be_found:add: No module named",
        error_of(["other"], capsys),
    )
    assert "does not exist" in error_of(["segment", "none"], capsys)


@pytest.mark.parametrize(
    ("started", "name"),
    [
        ("/ws/install/camseg_ros/lib/camseg_ros/camseg", "ros2 run camseg_ros camseg"),
        ("/opt/camseg/lib/camseg_ros/segmentation_node", "ros2 run camseg_ros camseg"),
        ("/home/me/.venv/bin/camseg", "camseg"),
        ("-c", "camseg"),
    ],
)
def test_messages_name_the_command_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    started: str,
    name: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    with pytest.raises(SystemExit):
        main(["evaluate", "--dataset", "camvid", "--data", str(tmp_path)])
    err = capsys.readouterr().err
    assert err.startswith(f"{name}: error: ")
    assert f"; {name} data list has all layouts" in err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert f"usage: {name} " in capsys.readouterr().out
