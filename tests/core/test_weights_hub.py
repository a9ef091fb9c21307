"""`camseg weights pull` against a hub on localhost.

Each in its own process: the client reads its settings when it is imported.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import published_files
import pytest
import reference
import torch
from hub_server import COMMIT, Hub, running
from safetensors.torch import load_file

from camseg_core.weights import PUBLISHED

pytestmark = pytest.mark.slow  # processes that import torch

MODEL = PUBLISHED["cam-seg-base-768"]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    autoencoder, transformer = published_files.write_files(tmp_path / "served")
    files = {
        MODEL.autoencoder: autoencoder.read_bytes(),
        MODEL.transformer: transformer.read_bytes(),
    }
    with running(Hub(MODEL.repository, files)) as found:
        yield found


def pull(
    hub: Hub, folder: Path, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command in `folder`, whose cache is the hub's client's."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HF_") and not name.lower().endswith("_proxy")
    }
    environment |= {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **variables,
    }
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    config = published_files.config_file(folder)
    command = [
        sys.executable,
        "-m",
        "camseg_core.cli",
        "weights",
        "pull",
        "cam-seg-base-768",
        "--config",
        str(config),
        *options,
    ]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def assert_imported(folder: Path) -> None:
    found = load_file(folder / "model.safetensors")
    assert all(
        torch.equal(found[name], tensor) for name, tensor in reference.published_state().items()
    )


def test_pull_downloads_once_and_imports_and_then_does_without_the_network(
    hub: Hub, tmp_path: Path
) -> None:
    done = pull(hub, tmp_path)
    assert done.returncode == 0, done.stderr
    assert_imported(tmp_path / "cam-seg-base-768")
    assert not (tmp_path / "served" / "sprung").exists()
    for name, content in hub.files.items():
        assert (
            f"mahmed10/CAM-Seg@{COMMIT[:12]} {name}: {len(content) / 1e6:.1f} MB, to download"
            in done.stdout
        )
    fetched = [name for method, name, _ in hub.requests if method == "GET"]
    assert sorted(fetched) == sorted(hub.files)

    hub.requests.clear()
    offline = pull(hub, tmp_path, "--out", "again", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr
    assert_imported(tmp_path / "again")
    assert offline.stdout.count("in the cache") == 2
    assert not hub.requests


def test_a_broken_download_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    content = published_files.autoencoder_content(tmp_path / "sprung")
    content["state_dict"]["loss.large"] = torch.ones(
        6_000_000
    )  # the client writes and resumes in pieces of 10 MB
    torch.save(content, tmp_path / "large")
    hub.files[MODEL.autoencoder] = (tmp_path / "large").read_bytes()
    hub.break_after = 15_000_000
    done = pull(hub, tmp_path, "--revision", "v1")
    assert done.returncode == 0, done.stderr
    assert_imported(tmp_path / "cam-seg-base-768")
    assert [
        asked
        for method, name, asked in hub.requests
        if method == "GET" and asked and int(asked[6:].rstrip("-")) > 0
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            "revision",
            "cannot download pretrained_models/vae/modelf16.ckpt of mahmed10/CAM-Seg: "
            "it has no revision 'v9'",
        ),
        (
            "file",
            "cannot download pretrained_models/mar/city768.16.pth of mahmed10/CAM-Seg: "
            "the repository has no such file",
        ),
        ("repository", "the hub has no such repository, or it is private"),
        ("offline", "HF_HUB_OFFLINE is set) and the file is not in the cache"),
        ("loop", "the same command resumes"),
        ("address", "check the network, any proxy and HF_ENDPOINT"),
    ],
)
def test_what_cannot_be_downloaded_is_one_line(
    hub: Hub, tmp_path: Path, change: str, reason: str
) -> None:
    if change == "file":
        del hub.files[MODEL.transformer]
    elif change == "repository":
        hub.repository = "somebody/else"
    hub.redirects_forever = change == "loop"
    variables = {
        "offline": {"HF_HUB_OFFLINE": "1"},
        "address": {"HF_ENDPOINT": "hub.local"},
    }.get(change, {})
    done = pull(hub, tmp_path, *(["--revision", "v9"] if change == "revision" else []), **variables)
    assert done.returncode == 2
    assert reason in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_folder_in_the_way_is_named_before_anything_is_downloaded(
    hub: Hub, tmp_path: Path
) -> None:
    (tmp_path / "cam-seg-base-768").mkdir()
    (tmp_path / "cam-seg-base-768" / "notes").touch()
    done = pull(hub, tmp_path)
    assert done.returncode == 2
    assert "cam-seg-base-768 is not empty: name a new folder" in done.stderr
    assert not hub.requests
