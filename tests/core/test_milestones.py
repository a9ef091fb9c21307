"""What a configuration plans for steps that its training does not reach is named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from camseg_core.config.yaml_file import load_yaml
from camseg_core.training.adaptation import AdaptationRecipe
from camseg_core.training.distill import DistillationRecipe
from camseg_core.training.finetune import FinetuneRecipe
from camseg_core.training.milestones import warn_of_unreached
from camseg_core.training.recipes import Recipe
from camseg_core.training.transformer import TransformerTraining

CONFIGS = Path(__file__).parents[2] / "config" / "train"


def warned(caplog: pytest.LogCaptureFixture, *changes: str, task: bool = True) -> str:
    recipe = load_yaml(None, FinetuneRecipe, [f"training.{each}" for each in changes])
    caplog.clear()
    warn_of_unreached(recipe.training, "training", 100, task)
    return caplog.text


def test_each_entry_is_named_in_one_line_with_the_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warned(caplog, "loop.steps=60")
    assert [each.message for each in caplog.records] == [
        "the 60 steps of training end before what is planned for later has taken effect: "
        "training.task.balanced_until (150 steps); lower it, as with "
        "--set training.task.balanced_until=30, or raise the steps"
    ]
    late = ("rare_until=21", "task.decoder_joins=20", "task.late_from=20", "task.own_share=0.1")
    warned(caplog, "loop.steps=20", "rare_share=0.5", *late)
    (found,) = (each.message for each in caplog.records)
    for entry in ("loop.warmup (30", "rare_until (21", "task.decoder_joins (20"):
        assert f"training.{entry} steps)" in found
    assert "training.task.late_from (20 steps), training.task.balanced_until (150 steps)" in found
    warned(caplog, "loop.epochs=1", "loop.warmup_epochs=2", "task.balanced_until=1")
    assert "training.loop.warmup_epochs (33 steps)" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        ["loop.steps=150"],
        ["loop.steps=60", "task.balanced_until=60", "loop.warmup=60"],
        ["rare_until=900"],  # rare_share is 0
        ["task.late_from=900"],  # the shares are the same
    ],
)
def test_what_is_reached_or_has_no_effect_is_not_named(
    caplog: pytest.LogCaptureFixture, changes: list[str]
) -> None:
    assert not warned(caplog, *changes)


def test_a_layout_without_the_task_loss_has_only_the_warm_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not warned(caplog, "loop.steps=60", task=False)
    assert "loop.warmup (30 steps)" in warned(caplog, "loop.steps=20", task=False)
    training = TransformerTraining()
    short = replace(training, loop=replace(training.loop, steps=50))
    warn_of_unreached(short, "training", 100)
    assert "loop.warmup (100 steps)" in caplog.text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("camseg-lite", Recipe),
        ("camseg-lite-camvid", Recipe),
        ("finetune", FinetuneRecipe),
        ("distill", DistillationRecipe),
        ("adapt", AdaptationRecipe),
    ],
)
def test_the_recipes_reach_all_that_they_plan(
    caplog: pytest.LogCaptureFixture, name: str, kind: Any
) -> None:
    warn_of_unreached(load_yaml(CONFIGS / f"{name}.yaml", kind).training, "training", 367, True)
    assert not caplog.records
