"""What all commands' parsers do: version, groups, defaults, options given twice, near misses."""

import re

import pytest

from camseg_core import __version__
from camseg_core.cli.main import main


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Return what a command that must exit with `code` prints, its blanks as one."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert (caught.value.code or 0) == code
    out, err = capsys.readouterr()
    return " ".join((err or out).split())


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version", code=0) == f"camseg {__version__}"


def test_commands_are_grouped_by_task(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "--help", code=0)
    scoring, drives = ("score a model:", "evaluate", "compare"), ("recorded drives:", "bag")
    order = ["run a model:", "segment", *scoring, "train:", "distill", *drives]
    places = [text.index(f" {each} ") for each in order]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        ("segment", "--threads", "0"),
        ("segment", "--opacity", "0.5"),
        ("evaluate", "--out", "out/evaluate"),
        ("data check", "--sheet-frames", "8"),
        ("bag evaluate", "--tolerance", "5"),
        ("bag make", "--topic", "/camera/image_raw"),
        ("train", "--workers", "0"),
    ],
)
def test_defaults_are_shown_once(
    command: str, option: str, default: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, *command.split(), "--help", code=0)
    help_of = re.search(rf" {option} (?:(?! --[a-z]).)*? \(default: {default}\)", text)
    assert help_of is not None, text
    assert help_of[0].count("default") == 1
    assert "(default: None)" not in text
    assert "(default: False)" not in text


def test_help_that_begins_with_an_abbreviation_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "segment", "--help", code=0)
    assert "--eta X DDIM's eta: 0 is deterministic" in text
    assert "--steps STEPS denoising steps; more take longer" in text


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "9223372036854775808", "9" * 5000])
def test_a_count_is_a_number_that_can_be_counted_to(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, "segment", "x", "--frames", value)
    assert "camseg segment: error: argument --frames: must be a whole number >= 1" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "x", "--fames", "3"], "--fames 3; did you mean --frames?"),
        (["evaluate", "--data", "x", "--sed=1"], "--sed=1; did you mean --seed?"),
        (["data", "check", "x", "--jsn"], "--jsn; did you mean --json?"),
        (["bag", "evaluate", "x", "--topci", "/y"], "--topci /y; did you mean --topic?"),
        (["segment", "x", "y"], "y"),
    ],
)
def test_an_unknown_option_is_answered_with_the_usage_of_its_command(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(capsys, *arguments)
    command = " ".join(
        ["camseg", *(each for each in arguments[:2] if each.isalpha() and each != "x")]
    )
    assert text.startswith(f"usage: {command} [-h]")
    assert text.endswith(f"{command}: error: unrecognized arguments: {message}")


def test_an_unknown_command_or_choice_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said(capsys, "segmnt").endswith("did you mean segment?")
    assert said(capsys, "segment", "x", "--sampler", "dim").endswith("did you mean ddim?")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "--data", "a", "--data", "b"],
        ["data", "check", "a", "--mapping", "x", "--mapping=y"],
        ["segment", "x", "--model", "a", "--model", "b"],
        ["bag", "make", "x", "--source", "a", "--source", "b"],
        ["export", "--out", "a", "--out", "b"],
    ],
)
def test_a_second_value_does_not_replace_the_first_in_silence(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search(
        r"error: argument --[a-z]+: given twice, with (a|x) and (b|y); it takes one$",
        said(capsys, *arguments),
    )


def test_the_same_value_twice_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "segment", "nothing", "--out", "a", "--out", "a")
    assert "nothing does not exist" in text
