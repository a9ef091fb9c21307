"""Containers and unit, without running them: they name existing files and match the package."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from camseg_ros.middleware import ALLOCATOR, OLD_PROFILE, PROFILE
from camseg_ros.parameter_spec import file_schema
from camseg_ros.parameters import SPECS

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
DOCKERFILES = ("Dockerfile.x86", "Dockerfile.jetson")
PREFIX = "/opt/camseg"


def instructions(name: str) -> list[tuple[str, str]]:
    """Keyword and arguments of every instruction, with continued lines joined."""
    lines = [
        line
        for line in (DOCKER / name).read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        for line in joined.splitlines()
        if line.strip()
    ]


def unit() -> list[tuple[str, str]]:
    lines = (DOCKER / "camseg.service").read_text(encoding="utf-8").splitlines()
    return [
        (name, value)
        for name, _, value in (
            line.partition("=") for line in lines if line and line[0] not in "#["
        )
    ]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_that_is_copied_exists_and_is_enough_to_install(name: str) -> None:
    copied = [
        arguments.split()[:-1]
        for keyword, arguments in instructions(name)
        if keyword == "COPY" and not arguments.startswith("--from")
    ]
    sources = {source for line in copied for source in line}
    for source in sources:
        assert (ROOT / source).exists(), source
    needed = re.findall(
        r'"((?:resource|launch|config)/[^"]*|package\.xml|README\.md)"',
        (ROOT / "setup.py").read_text(encoding="utf-8"),
    )
    assert needed
    assert {path.split("/")[0] for path in needed} | {
        "setup.py",
        "setup.cfg",
        "camseg_core",
        "camseg_ros",
    } <= sources


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_node_has_a_converter_of_images(name: str) -> None:
    commands = " ".join(arguments for keyword, arguments in instructions(name) if keyword == "RUN")
    skipped = re.findall(r'--skip-keys "([^"]*)"', commands)
    assert "rosbags-image" in commands or "cv_bridge" not in " ".join(skipped)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_container_runs_the_launch_file_as_a_user_with_the_entrypoint(name: str) -> None:
    found = instructions(name)
    last = dict(found)
    assert last["USER"] == "camseg"
    assert last["STOPSIGNAL"] == "SIGINT"
    assert ("COPY", "docker/entrypoint.sh /usr/local/bin/camseg-entrypoint") in found
    assert last["ENTRYPOINT"] == '["/usr/local/bin/camseg-entrypoint"]'
    assert last["CMD"] == '["ros2", "launch", "camseg_ros", "segment.launch.py"]'
    assert (ROOT / "launch/segment.launch.py").is_file()
    assert any(
        f"--install-base {PREFIX} " in arguments for keyword, arguments in found if keyword == "RUN"
    )


def test_the_shell_parses_and_the_entrypoint_gives_its_place_away() -> None:
    entrypoint = DOCKER / "entrypoint.sh"
    assert entrypoint.stat().st_mode & 0o111
    assert f":-{PREFIX}}}/setup.bash" in entrypoint.read_text(encoding="utf-8")
    assert entrypoint.read_text(encoding="utf-8").rstrip().endswith('exec "$@"')
    scripts = [entrypoint.read_text(encoding="utf-8")]
    scripts += [
        arguments
        for name in DOCKERFILES
        for keyword, arguments in instructions(name)
        if keyword == "RUN"
    ]
    scripts += [
        re.sub(r"^/bin/bash -c '(.*)'$", r"\1", value).replace("$$", "$")
        for name, value in unit()
        if name == "ExecStart"
    ]
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script.encode(), check=True, timeout=20)


def start_container(folder: Path, command: str, *, last: str = "") -> subprocess.Popen[str]:
    """Start the entrypoint, with its workspace and its record of the last start in a folder."""
    (folder / "setup.bash").write_text("export SOURCED=yes\n", encoding="utf-8")
    starts = folder / "starts"
    if last:
        starts.write_text(last, encoding="utf-8")
    environment = {**os.environ, "CAMSEG_PREFIX": str(folder), "CAMSEG_STARTS": str(starts)}
    arguments = [str(DOCKER / "entrypoint.sh"), "bash", "-c", command]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_the_first_start_of_a_container_does_not_wait(tmp_path: Path) -> None:
    out, err = start_container(tmp_path, "echo $SOURCED").communicate(timeout=30)
    assert (out, err) == ("yes\n", "")
    assert (tmp_path / "starts").read_text(encoding="utf-8").split()[1] == "0"


@pytest.mark.parametrize(
    ("last", "waits"), [("now 0", "1"), ("now 8", "16"), ("now 64", "64"), ("0 64", "0")]
)
def test_starts_in_a_row_wait_longer_each_time(tmp_path: Path, last: str, waits: str) -> None:
    starting = start_container(tmp_path, "true", last=last.replace("now", str(int(time.time()))))
    assert starting.stderr is not None
    if waits != "0":
        assert f"waiting {waits} s before this start" in starting.stderr.readline()
        starting.send_signal(signal.SIGINT)  # ends the wait as well
    assert starting.wait(30) == 0
    assert starting.stderr.read() == ""


def test_compose_names_files_that_exist_and_shares_memory_network_and_gpu_with_the_host() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    assert set(compose["services"]) == {"x86", "jetson"}
    for service in compose["services"].values():
        context = DOCKER / service["build"]["context"]
        assert context.resolve() == ROOT
        assert (context / service["build"]["dockerfile"]).is_file()
        declared = {
            arguments.split("=")[0]
            for keyword, arguments in instructions(Path(service["build"]["dockerfile"]).name)
            if keyword == "ARG"
        }
        assert set(service["build"]["args"]) <= declared
        assert (service["ipc"], service["network_mode"], service["runtime"]) == (
            "host",
            "host",
            "nvidia",
        )
        volume, parameters = (entry.split(":") for entry in service["volumes"])
        assert volume[0] in compose["volumes"]
        assert (DOCKER / parameters[0]).is_file()
        assert f"params_file:={parameters[1]}" in service["command"]


def test_the_gpu_parameters_are_valid_and_their_cache_is_the_containers_and_the_units() -> None:
    content = yaml.safe_load((DOCKER / "gpu.param.yaml").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(file_schema(SPECS)).validate(content)
    cache = content["/**"]["ros__parameters"]["engine_cache"]
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))
    assert f"engine-cache:{cache}" in compose["services"]["x86"]["volumes"]
    assert f"/var/cache/{dict(unit())['CacheDirectory']}" == cache
    for name in DOCKERFILES:
        assert any(
            f"-o camseg -g camseg {cache}" in arguments for _, arguments in instructions(name)
        )


def test_the_units_environment_is_the_launch_files() -> None:
    variables = dict(value.split("=", 1) for name, value in unit() if name == "Environment")
    assert {
        name: value for name, value in variables.items() if name.startswith("MALLOC_")
    } == ALLOCATOR
    profile = Path(variables[OLD_PROFILE])
    assert PROFILE not in variables
    installed = profile.relative_to(f"{PREFIX}/share/camseg_ros")
    assert (ROOT / installed).is_file()
    assert f'"{installed}"' in (ROOT / "setup.py").read_text(encoding="utf-8")


def test_the_unit_stops_and_restarts_the_node_as_the_node_ends() -> None:
    values = dict(unit())
    assert (values["KillSignal"], values["Restart"], values["Type"]) == (
        "SIGINT",
        "on-failure",
        "exec",
    )
    assert f"exec {PREFIX}/lib/camseg_ros/segmentation_node --ros-args" in values["ExecStart"]
    assert '"segmentation_node = camseg_ros.__main__:main"' in (ROOT / "setup.py").read_text(
        encoding="utf-8"
    )


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / "camseg.service"
    shutil.copy(DOCKER / "camseg.service", copy)
    done = subprocess.run(
        [analyze, "verify", "--recursive-errors=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    about_the_unit = [
        line
        for line in done.stderr.splitlines()
        if "camseg.service" in line and "is not executable" not in line
    ]
    assert about_the_unit == []
