"""Configuration files: read strictly, overridden, written back; one-line errors name the entry."""

import copy
import enum
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, Optional

import pytest
import yaml

from camseg_core.config.model import CamSegConfig, LightDecoderConfig
from camseg_core.config.reader import build, renamed_from
from camseg_core.config.yaml_file import load_yaml, read_yaml, to_yaml
from camseg_core.errors import ConfigError, ModelError
from camseg_core.training.recipes import Recipe
from camseg_core.weights import CAM_SEG_BASE_768, CAMSEG_LITE

REPOSITORY = Path(__file__).parents[2]


class Kind(enum.Enum):
    FAST = "fast"
    EXACT = "exact"


@dataclass(frozen=True)
class Loop:
    steps: int
    lr: float = 1e-3
    warmup: int = 50


@dataclass(frozen=True)
class Codec:
    width: int = 8

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ModelError("width must be positive")


@dataclass(frozen=True)
class Whole:
    loop: Loop = field(default_factory=lambda: Loop(steps=4200, warmup=100))
    name: str = "plain"
    kind: Kind = Kind.FAST
    schedule: Literal["cosine", "constant"] = "cosine"
    crop: tuple[int, int] = (32, 64)
    widths: tuple[float, ...] = (1.0,)
    flip: bool = True
    codec: Codec | None = None
    limit: Optional[int] = None  # noqa: UP045 the older spelling is read as well


def read(tmp_path: Path, text: str, *overrides: str) -> Whole:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_yaml(path, Whole, overrides)


def test_every_kind_of_field_is_read(tmp_path: Path) -> None:
    text = """
    loop: {steps: 10, lr: 2}
    name: run
    kind: exact
    schedule: constant
    crop: [1, 2]
    widths: [1, 2.5, 3e0]
    flip: false
    codec: {width: 3}
    limit: 7
    """
    expected = Whole(
        Loop(10, 2.0, 100),
        "run",
        Kind.EXACT,
        "constant",
        (1, 2),
        (1.0, 2.5, 3.0),
        False,
        Codec(3),
        7,
    )
    found = read(tmp_path, text)
    assert found == expected
    assert isinstance(found.loop.lr, float)


@pytest.mark.parametrize(
    "text", ["", "# nothing but a comment\n", "loop: {}\n", "codec: null\nlimit: ~\n"]
)
def test_what_is_left_out_keeps_its_default(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == Whole()


def test_a_part_of_a_nested_entry_keeps_the_rest_that_the_outer_one_gives_it(
    tmp_path: Path,
) -> None:
    assert read(tmp_path, "loop: {lr: 1e-2}").loop == Loop(
        steps=4200, lr=1e-2, warmup=100
    )  # Loop itself has warmup 50


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("007", 7),
        ("08", 8),
        ("-010", -10),
        ("0x1F", 31),
        ("0b11", 3),
        ("1_000", 1000),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("00.5", 0.5),
        (".inf", math.inf),
        ("1.", 1.0),
        ("+.5e1", 5.0),
        (".", "."),
        ("..", ".."),
        ("-.", "-."),
        ("1_0", 10),
        ("_1", "_1"),
    ],
)
def test_numbers_with_leading_zeros_are_decimal(
    tmp_path: Path, text: str, value: float | str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(f"{text}: [{text}]\n", encoding="utf-8")
    assert read_yaml(path) == {value: [value]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1e3),
        ("-2e+1", -20.0),
        ("1.e-2", 0.01),
        ("0.5", 0.5),
        (".5", 0.5),
        ("3", 3.0),
    ],
)
def test_a_number_without_a_dot_before_its_exponent_is_a_number(
    tmp_path: Path, text: str, value: float
) -> None:
    assert read(tmp_path, f"loop: {{lr: {text}}}").loop.lr == value
    assert read(tmp_path, "", f"loop.lr={text}").loop.lr == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "banana: 1",
            "unknown entries banana: misspelt, or written by a newer camseg? Entries here: ",
        ),
        (
            "loop: {stpes: 1, wramup: 2}",
            "unknown entries loop.stpes, loop.wramup: did you mean loop.steps, loop.warmup?",
        ),
        ("codec: {width: wide}", "codec.width must be of type int, got 'wide'"),
        ("codec: {width: 0}", "codec: width must be positive"),
        ("loop: {steps: 1.5}", "loop.steps must be of type int, got 1.5"),
        ("loop: {steps: true}", "loop.steps must be of type int, got True"),
        ("loop: {steps: }", "loop.steps must be of type int, got nothing"),
        ("loop: {lr: '1e-3'}", "loop.lr must be of type float, got '1e-3'"),
        ("loop: {lr: .nan}", "loop.lr must be a finite number, got nan"),
        ("loop: {lr: -.inf}", "loop.lr must be a finite number, got -inf"),
        ("loop: 5", "loop must be entries with values, got 5"),
        ("name: 5", "name must be of type str, got 5"),
        ("flip: 1", "flip must be of type bool, got 1"),
        ("kind: slow", "kind must be one of fast, exact, got 'slow'"),
        ("schedule: Cosine", "schedule must be one of cosine, constant, got 'Cosine'"),
        ("crop: 5", "crop must be a list, got 5"),
        ("crop: [1, 2, 3]", "crop must be a list of 2, got [1, 2, 3]"),
        ("crop: [1, b]", "crop must be of type int, got 'b'"),
        ("- a\n- b", "the file must be entries with values, got ['a', 'b']"),
        ("1: 2", "unknown entries 1"),
        ("name: a\nname: b", "name is given twice (in what begins at line 1)"),
        ("crop: [1, 2", "is not a configuration in YAML: "),
        ("a: b: c", "mapping values are not allowed here (line 1)"),
        (
            "name: !!python/object/apply:os.getcwd []",
            "could not determine a constructor for the tag",
        ),
        ("name: \x00", "special characters are not allowed"),
        (f"name: {list(range(500))}", "must be of type str, got"),
    ],
)
def test_a_wrong_file_says_where_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    said = str(caught.value)
    assert message in said
    assert str(tmp_path / "config.yaml") in said
    assert "\n" not in said
    assert len(said) < 250 + len(str(tmp_path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"cannot read the configuration .*absent\.yaml: No such file or directory",
    ):
        load_yaml(tmp_path / "absent.yaml", Whole)
    with pytest.raises(ConfigError, match="cannot read the configuration .*: Is a directory"):
        load_yaml(tmp_path, Whole)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe4")
    with pytest.raises(ConfigError, match=r"latin\.yaml is not a configuration in YAML"):
        load_yaml(tmp_path / "latin.yaml", Whole)


def test_overrides_change_single_entries_in_order(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "loop: {steps: 10}",
        "loop.steps=20",
        "codec.width=5",
        "crop=[3, 4]",
        "name=a=b",
        "limit=null",
        "loop.steps=30",
    )
    assert found == Whole(loop=Loop(30, warmup=100), codec=Codec(5), crop=(3, 4), name="a=b")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loop.steps", "--set loop.steps: expected ENTRY=VALUE, such as loop.steps=100"),
        ("=1", "--set =1: expected ENTRY=VALUE"),
        ("loop..steps=1", "--set loop..steps=1: expected ENTRY=VALUE"),
        ("loop.steps=many", "--set loop.steps=many: loop.steps must be of type int, got 'many'"),
        ("loop.step=1", "--set loop.step=1: unknown entries loop.step: did you mean loop.steps?"),
        ("loop.steps.x=1", "--set loop.steps.x=1: loop.steps must be of type int, got {'x': 1}"),
        ("crop=[1", "--set crop=[1: "),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "", override)
    assert str(caught.value).startswith(message)


def test_what_was_written_reads_back_equal(tmp_path: Path) -> None:
    for whole in (
        Whole(),
        Whole(Loop(1, 1e-7), "1e-3", Kind.EXACT, "constant", (1, 2), (), False, Codec(2), 3),
        Whole(name="no: [ä]"),
    ):
        assert read(tmp_path, to_yaml(whole)) == whole


@dataclass(frozen=True)
class Named:
    limits: Mapping[str, float] = field(default_factory=dict)


def test_values_by_name_are_read_and_checked() -> None:
    assert build(Named, {"limits": {"a": 1, "b": 0.5}}, "x", ConfigError) == Named(
        {"a": 1.0, "b": 0.5}
    )
    assert build(Named, {}, "x", ConfigError) == Named({})
    for content, message in (
        ({"a": "b"}, r"x: limits\.a must be of type float, got 'b'"),
        ([1], "must be values by name"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(Named, {"limits": content}, "x", ConfigError)


def test_an_entry_without_default_that_is_missing_is_named() -> None:
    with pytest.raises(ModelError, match=r"^here: the file lacks one of its entries: steps$"):
        build(Loop, {"lr": 1.0}, "here", ModelError)


@pytest.mark.parametrize(
    "name",
    [
        "adapt.yaml",
        *("camseg-lite-camvid.yaml", "distill.yaml", "finetune.yaml", "light-decoder.yaml"),
        "mask-autoencoder.yaml",
    ],
)
def test_the_shipped_files_write_out_every_default(name: str) -> None:
    from camseg_core.training.adaptation import AdaptationRecipe  # slow to import
    from camseg_core.training.distill import (
        DistillationRecipe,
        LightDecoderRecipe,
    )
    from camseg_core.training.finetune import FinetuneRecipe
    from camseg_core.training.recipes import AutoencoderRecipe, Recipe

    path = REPOSITORY / "config" / "train" / name
    sets = load_yaml(REPOSITORY / "config" / "train" / "camseg-lite.yaml", Recipe)
    codec = replace(Recipe().autoencoder, model=sets.autoencoder.model)
    defaults = {
        "adapt.yaml": AdaptationRecipe(),
        "camseg-lite-camvid.yaml": Recipe(),
        "distill.yaml": DistillationRecipe(sets.data),
        "finetune.yaml": FinetuneRecipe(),
        "light-decoder.yaml": LightDecoderRecipe(),
        "mask-autoencoder.yaml": AutoencoderRecipe(sets.data, codec),
    }[name]
    assert load_yaml(path, type(defaults)) == defaults
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    left_out = [place for place in places(defaults) if not has(written, place.split("."))]
    assert not left_out, f"{path} leaves out {', '.join(left_out)}"


def places(instance: Any, before: str = "") -> list[str]:
    """The dotted places of all entries."""
    found = []
    for entry in fields(instance):
        value = getattr(instance, entry.name)
        found += (
            places(value, f"{before}{entry.name}.")
            if is_dataclass(value)
            else [f"{before}{entry.name}"]
        )
    return found


def has(content: Any, names: list[str]) -> bool:
    """Whether there is an entry at this place."""
    return not names or (
        isinstance(content, dict) and names[0] in content and has(content[names[0]], names[1:])
    )


def test_the_model_configuration_is_read_by_the_same_rules() -> None:
    content = asdict(CAMSEG_LITE)
    assert build(CamSegConfig, content, "config.json", ModelError) == CAMSEG_LITE
    content["refiner"]["detail"] = 1.5
    with pytest.raises(
        ModelError, match=r"config\.json: refiner\.detail must be of type int, got 1\.5"
    ):
        build(CamSegConfig, content, "config.json", ModelError)


def sizes(content: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The places of whole numbers and of lists of them."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from sizes(value, (*place, name))
        elif type(value) is int or (isinstance(value, tuple) and type(value[0]) is int):
            yield (*place, name)


@pytest.mark.parametrize("size", [-1, 10**9])
@pytest.mark.parametrize("light", [True, False])
def test_a_model_of_impossible_sizes_is_refused_by_name(size: int, light: bool) -> None:
    whole = asdict(CAMSEG_LITE)
    if light:
        whole = asdict(replace(CAM_SEG_BASE_768, light_decoder=LightDecoderConfig(blocks=(1,) * 4)))
    places = [place for place in sizes(whole) if place != ("network_pixels",)]
    assert len(places) > 14
    for place in places:
        content = copy.deepcopy(whole)
        part = content
        for name in place[:-1]:
            part = part[name]
        part[place[-1]] = (
            (*part[place[-1]][:-1], size) if isinstance(part[place[-1]], tuple) else size
        )
        with pytest.raises(ModelError, match=place[-1]):
            build(CamSegConfig, content, "config.json", ModelError)


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        ("transformer", {"heads": 5}, "width must be a multiple of heads, 5, got 192"),
        ("transformer", {"grid": (3,)}, r"grid must be two numbers, rows and columns, got \[3\]"),
        ("transformer", {"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ("denoiser", {"width": 0}, "width must be from 1 to 65536, got 0"),
        ("mask_autoencoder", {"decoder_blocks": (-1, 2)}, r"from 0 to 65536, got \[-1, 2\]"),
        ("mask_autoencoder", {"latent_channels": 0}, "latent_channels must be from 1"),
    ],
)
def test_a_part_that_cannot_be_built_is_refused(
    part: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        replace(getattr(CAMSEG_LITE, part), **changes)


def test_pixels_have_three_channels() -> None:
    with pytest.raises(ModelError, match=r"pixel_mean must be three numbers, .*, got \[1.0\]"):
        replace(CAMSEG_LITE, pixel_mean=(1.0,))


@dataclass(frozen=True)
class Renamed:
    loop_steps: int = field(default=1, metadata=renamed_from("iterations"))
    kind: str = field(default="new", metadata=renamed_from("sort", {"old": "new"}))
    loop: Loop = field(default_factory=lambda: Loop(steps=3))


def test_renamed_entries_and_values_are_read_with_one_line_that_names_the_new(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(2):
        found = build(Renamed, {"iterations": 5, "sort": "old"}, "a.yaml", ConfigError)
        assert found == Renamed(5, "new")
    assert [record.getMessage() for record in caplog.records] == [
        "a.yaml: iterations is now called loop_steps",
        "a.yaml: sort is now called kind",
        "a.yaml: kind: old is now called new",
    ]


def test_an_override_works_under_either_name(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("iterations: 5\nloop: {steps: 4}", encoding="utf-8")
    overrides = ["loop_steps=6", "loop.warmup=2"]
    assert load_yaml(path, Renamed, overrides) == Renamed(6, loop=Loop(4, warmup=2))
    assert load_yaml(path, Renamed, ["iterations=7"]).loop_steps == 7


def test_an_entry_under_both_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="loop_steps is given twice: iterations is its old name"):
        build(Renamed, {"iterations": 5, "loop_steps": 6}, "a.yaml", ConfigError)


def test_a_training_configuration_under_its_old_keys_is_read_with_a_line_for_each_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "old.yaml"
    path.write_text(
        "training:\n  loop: {steps: 7, lr: 1.0e-3, accumulate: 2, undecayed: [head.]}\n"
        "  repeats: 3\n  recompute_blocks: true\n",
        encoding="utf-8",
    )
    with caplog.at_level(logging.WARNING):
        training = load_yaml(path, Recipe).training
    assert (training.loop.grad_accum_steps, training.loop.no_weight_decay) == (2, ("head.",))
    assert (training.diffusion_batch_mul, training.gradient_checkpointing) == (3, True)
    new = ("grad_accum_steps", "no_weight_decay", "diffusion_batch_mul", "gradient_checkpointing")
    for name in new:
        assert sum(name in message for message in caplog.messages) == 1, name
