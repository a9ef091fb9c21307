"""The benchmarks' shared parts, and two benchmarks at a tiny size. No time is asserted."""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import published_size
import pytest
import stability
import torch
from document import (
    Outcome,
    add_document_options,
    camvid_parser,
    command_of,
    conclude,
    provenance,
    write_section,
)
from published import LIGHT, TINY
from torch import nn

from camseg_core.diffusion.samplers import SamplerOptions, Schedule
from camseg_core.errors import ConfigError
from camseg_core.weights import DEFAULT_MODEL

CONFIG = replace(TINY, light_decoder=LIGHT)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser()
    add_document_options(found)
    return found


NAMES = ["as_published", "exact_decoder_4_steps", "light_decoder_1_step"]


def test_a_benchmark_writes_its_section_and_ends_with_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "results.md"
    document.write_text("before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter\n")
    outcome = Outcome("| a |", ["    command"], {"a": 1})
    conclude(parser(), "x", lambda _: outcome, given=["--json", f"--write={document}"])
    assert (
        document.read_text()
        == "before\n<!-- x: begin -->\n| a |\n\n    command\n<!-- x: end -->\nafter\n"
    )
    *table, last = capsys.readouterr().out.splitlines()
    assert "| a |" in table
    assert json.loads(last) == {"a": 1}


def test_the_command_has_what_was_asked_for_and_no_default_or_path_of_the_machine() -> None:
    options = camvid_parser("")
    options.add_argument("--temperatures", type=float, nargs="+")
    options.add_argument("--frames", type=int, default=5)
    options.add_argument(
        "--size", action="append", type=lambda text: tuple(map(int, text.split("x")))
    )
    given = ["--data", "/home/me/camvid", "--json", "--frames", "5", "--temperatures", "0.5", "1"]
    more = ["--model", "my model", "--size", "4x3", "--size", "8x6", "--write", "r.md"]
    assert command_of("x-y", options, options.parse_args([*given, *more])) == (
        "python benchmarks/x_y.py --data <CamVid root> --model 'my model' --write r.md "
        "--temperatures 0.5 1 --size 4x3 --size 8x6"
    )


def test_the_commit_is_that_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter(["old", "new"])
    monkeypatch.setattr("document.current_commit", lambda *paths: next(commits))
    seen: list[str] = []

    def measure(arguments: argparse.Namespace) -> Outcome:
        seen.extend(provenance(arguments, "3 frames; ", on="a machine"))
        return Outcome("", [], {})

    conclude(parser(), "x", measure, given=[])
    assert seen == ["    python benchmarks/x.py", "3 frames; a machine; commit old."]


def test_a_table_is_not_replaced_by_nothing(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    content = "<!-- x: begin -->\n| a |\n| --- |\n| 1 |\n<!-- x: end -->\n"
    document.write_text(content)
    with pytest.raises(ConfigError, match=r"the section x of .*results\.md must keep a table"):
        write_section(document, "x", "0 of 3 jobs were run.")
    assert document.read_text() == content


def test_long_lines_of_a_section_are_wrapped_except_in_tables(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text("<!-- x: begin -->\n<!-- x: end -->\n")
    row, command, sentence = "| a " * 40 + "|", "python " + "--word a " * 20, "A word " * 20
    write_section(document, "x", f"{row}\n\n    {command}\n\n{sentence}")
    _, written_row, *lines, _ = document.read_text().splitlines()
    assert written_row == row
    assert max(map(len, lines)) <= 120
    assert [line for line in lines if line.endswith("\\")] == [lines[1]]
    assert " ".join(lines).replace("\\ ", "").split() == f"{command} {sentence}".split()


def test_what_a_benchmark_cannot_use_is_one_line(tmp_path: Path) -> None:
    def refuse(_: argparse.Namespace) -> Outcome:
        raise ConfigError("not like this")

    with pytest.raises(SystemExit, match="^not like this$"):
        conclude(parser(), "x", refuse, given=["--json"])


def test_a_document_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "empty.md").write_text("")
    for name, message in (
        ("empty.md", r"empty\.md has no section between <!-- x: begin --> and <!-- x: end -->"),
        ("none.md", r"--write must name a document, got .*none\.md: "),
    ):
        with pytest.raises(SystemExit, match=message):
            conclude(parser(), "x", pytest.fail, given=[f"--write={tmp_path / name}"])


def test_failures_are_lines_on_stderr_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome("| a |", [], {"a": 1}, failures=["a is 1", "b is missing"])
    with pytest.raises(SystemExit, match="^1$"):
        conclude(parser(), "x", lambda _: outcome, given=["--json"])
    printed = capsys.readouterr()
    assert printed.err == "failed: a is 1\nfailed: b is missing\n"
    assert json.loads(printed.out.splitlines()[-1]) == {"a": 1}


def test_the_published_size_is_measured_in_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_size, "peak_bytes", lambda made: 2**20)
    figures = json.loads(
        json.dumps(published_size.measure_all(CONFIG, size=32, repeats=1, steps=12))
    )
    on_engines = [f"{name} on {e}" for name in NAMES[1:] for e in ("ONNX Runtime", "OpenVINO")]
    assert list(figures["tmac"]) == NAMES
    for kind in ("seconds", "peak_mib"):
        assert list(figures[kind]) == NAMES + on_engines, kind
    assert len(figures["engines"]) == 2
    for name in on_engines:
        assert figures[name] > 0
    for name in NAMES[1:]:
        assert figures[name] > 0
        assert figures["fp32_ratio"][name] > 0
        assert 0 < figures["bf16_latent_error"][name] < 0.05
        assert 0 <= figures["bf16_same_ids"][name] <= 1
    rows = published_size.table(figures).splitlines()
    assert [row.split("|")[1].strip() for row in rows[2:]] == NAMES + on_engines


def test_the_arithmetic_of_the_settings_differs_by_what_they_leave_out() -> None:
    """Head calls on both halves, or on one half four times or once; the decoders differ too."""
    published, exact, light = (
        published_size.multiply_accumulates(name, CONFIG, 32, steps=12) for name in NAMES
    )
    more = published_size.multiply_accumulates(NAMES[0], CONFIG, 32, steps=13)
    call, once = (
        more - published,
        256 * 32 + 32 * 32,
    )  # the step's embedding, which the others compute once for all tokens
    assert published - 12 * call == exact - 4 * ((call // 2) - 63 * once)
    assert light < exact < published


def test_a_size_between_the_tokens_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="size must be a multiple of 4 for tiny-published, got 30"
    ):
        published_size.measure_all(CONFIG, size=30, repeats=1)


@pytest.mark.slow
def test_stability_is_measured_on_every_video_in_every_setting() -> None:
    arguments = argparse.Namespace(
        model=DEFAULT_MODEL,
        frames=2,
        height=48,
        data=None,
        carry=[0.5],
        skipped=[],
        command="",
        commit="",
    )
    outcome = stability.measure(arguments)
    names = [
        "one_step",
        "one_step, stream, carry 0.5",
        "ddim, 10 steps",
        "ddim, 10 steps, stream, carry 0.7",
    ]
    assert [row["setting"] for row in outcome.figures] == names
    for row in outcome.figures:
        assert list(row["videos"]) == ["clear, 10 Hz", "clear, 30 Hz", "rain, 10 Hz"]
        assert all(
            0 <= video["flicker"] <= 1 and 0 <= video["mean_iou"] <= 1
            for video in row["videos"].values()
        )
    assert len(outcome.table.splitlines()) == 2 + 4


@pytest.mark.parametrize(
    ("sampler", "steps", "left"), [("one_step", 1, [400]), ("ddim", 10, [400, 267, 133, 0])]
)
def test_starting_part_way_runs_the_steps_that_are_left_from_the_last_result(
    sampler: str, steps: int, left: list[int]
) -> None:
    clean, noise = np.ones((3, 2), np.float32), np.full((3, 2), 0.5, np.float32)
    seen: list[int] = []
    noisy = []

    def denoise(cells: np.ndarray, step: int) -> np.ndarray:
        seen.append(step)
        noisy.append(cells)
        return clean

    way, schedule = (
        stability.PartWay(sampler, steps, 0.6),
        Schedule.cosine(prediction_type="sample"),
    )
    for _ in range(2):
        seen.clear()
        noisy.clear()
        found = way(denoise, noise, schedule, SamplerOptions(steps, 0.5), lambda _: noise)
    assert seen == left
    alpha_prod = schedule.alphas_cumprod[400]
    np.testing.assert_allclose(
        noisy[0], np.sqrt(alpha_prod) * clean + np.sqrt(1 - alpha_prod) * 0.5 * noise, rtol=1e-5
    )
    np.testing.assert_allclose(found, clean, atol=1e-5)


def test_bf16_is_stored_everywhere_except_in_the_diffusion_head() -> None:
    for name, module in published_size.model_in("bf16", CONFIG).named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            head = name.startswith("denoiser.")
            assert module.weight.dtype == (torch.float32 if head else torch.bfloat16), name


@pytest.mark.slow
def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    peaks = [
        published_size.peak_bytes(partial(published_size.in_torch, name, CONFIG, 32))
        for name in NAMES
    ]
    assert all(
        50 * 2**20 < peak < 2 * 2**30 for peak in peaks
    )  # torch alone takes some hundred MiB
