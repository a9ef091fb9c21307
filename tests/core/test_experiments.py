"""The queue of experiments on a miniature: what is run, resumed, refused and listed."""

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import adaptation_work
import experiment_work
import experiments
import intervals
import job_files
import numpy as np
import own_camera
import pytest
import result_parts
import results
from camvid_folder import write_camvid
from experiment_models import Place, in_steps, recipe_of, trained
from experiment_plan import PLAN as PLAN_FILE
from experiment_plan import Autoencoder, Job, Model, jobs_of, load_plan
from experiments import main, result_of
from intervals import (
    average_precision,
    kept,
    kept_precision,
    mean_iou,
    over_seeds,
    paired_lead,
)
from lite import tiny_lite
from viewpoints import turned, zoomed

from camseg_core.config.model import save_config
from camseg_core.config.yaml_file import load_yaml
from camseg_core.data import Sample
from camseg_core.data.synthetic.drive import SyntheticDrive
from camseg_core.errors import CamSegError, ConfigError
from camseg_core.labels import CITYSCAPES, UNLABELLED
from camseg_core.training.adaptation import run_adaptation
from camseg_core.training.recipes import Recipe

PLAN = """
recipe: recipe.yaml
seeds: [0]
reconstruction:
  {steps: [1, 2], batch: 2, codebooks: [null, 16, [4, 3]], disturbances: [0.5],
   every: 1, minutes: 1}
models:
  {heads: [latents, pixels], steps: 2, autoencoder_steps: 2, left_out: [coarse], frames: 2,
   minutes: 3}
shift:
  {frames: 1, suite: [paper/contrast, weather/fog], pitch: [5], roll: [-5], zoom: [0.5],
   height: [2.0], minutes: 2}
uncertainty:
  {frames: 1, domains: [paper/hue], sampling: {one step: {}, 2 masks: {sampler: ddim, steps: 2,
   samples: 2, temperature: 1.0}}, minutes: 1}
adaptation:
  {left_out: [coarse], minutes: 1,
   changed: [training.loop.steps=2, training.loop.validate_every=1, training.batch=2,
   "training.crop=[64, 64]", teaching.min_delta=0, teaching.max_miou_drop=1]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two small sets in `data`, a recipe and a plan."""
    data = tmp_path / "data"
    write_camvid(data / "camvid", "train", "val", size=(64, 96))
    write_camvid(data / "coarse", "train", frames=9, size=(64, 96))
    write_camvid(data / "coarse", "val", size=(64, 96))
    config = tiny_lite().config
    assert config.mask_autoencoder is not None
    save_config(config, tmp_path / "tiny.json")
    recipe = {
        "model": str(tmp_path / "tiny.json"),
        "data": [{"name": name, "kind": "camvid", "root": name} for name in ("camvid", "coarse")],
        "autoencoder": {
            "model": asdict(config.mask_autoencoder) | {"classes": 19},
            "batch": 2,
            "crop": [32, 32],
        },
        "training": {"batch": 2, "crop": [64, 64], "disturb": {"share": 0.5}},
    }
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    return tmp_path


def run(place: Path, *options: str) -> None:
    main(
        [
            f"--plan={place / 'plan.yaml'}",
            f"--data={place / 'data'}",
            f"--run={place / 'run'}",
            f"--results={place / 'results'}",
            *options,
        ]
    )


def test_the_plan_has_every_combination_once() -> None:
    plan = load_plan()
    jobs = jobs_of(plan)
    assert len({job.name for job in jobs}) == len(jobs)
    names = {job.name for job in jobs}
    assert {
        "reconstruct-kl-s0",
        "reconstruct-vq-4096-s2",
        "reconstruct-fsq-7x5x5x5x5-s1",
        "train-pixels-s0",
        "train-latents-disturbed-without-idd-lite-s2",
        "shift-latents-disturbed-s1",
        "uncertainty-pixels-disturbed-without-camvid-s0",
    } <= names
    for kind, count in (("reconstruct", 9), ("train", 4 + 6), ("shift", 4), ("adapt", 2)):
        assert sum(job.kind == kind for job in jobs) == 3 * count


def test_discrete_latents_of_the_plan_have_comparable_codebooks() -> None:
    sizes = [
        math.prod(codebook) if isinstance(codebook, tuple) else codebook
        for codebook in load_plan().reconstruction.codebooks
        if codebook is not None
    ]
    vq, fsq = sizes[: len(sizes) // 2], sizes[len(sizes) // 2 :]
    assert all(abs(math.log2(a) - math.log2(b)) < 0.1 for a, b in zip(vq, fsq, strict=True))


@pytest.mark.slow
def test_a_queue_runs_every_kind_of_job_and_none_twice(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(place)
    assert "jobs: 18 done in" in (out := capsys.readouterr().out), out
    jobs = jobs_of(load_plan(place / "plan.yaml"))
    results = {job.name: result_of(job, place / "results") for job in jobs}
    for name, result in results.items():
        assert result is not None, name
        assert result["command"].endswith(f"--only {name}")
        assert result["seconds"] >= 0
        assert min(result["n"].values()) > 0
    after = results["reconstruct-fsq-4x3-s0"]["figures"]["after"]
    assert [*after] == ["1", "2"]
    assert after["1"]["mean_iou"] != after["2"]["mean_iou"]
    assert after["2"]["bits"] == pytest.approx(math.log2(12))
    assert set(after["2"]["disturbed"]) == {"0.5"}
    shift = results["shift-pixels-disturbed-s0"]["figures"]
    families = ["clean", "clear", "paper", "weather", "pitch", "roll", "zoom", "height"]
    assert [*shift["families"]] == [*shift["levels"]] == families
    clean = np.array(shift["families"]["clean"])
    assert clean.shape == (2, 3, len(shift["classes"]))
    assert clean[:, 1].sum() == clean[:, 2].sum()  # every labelled pixel has a class in the mask
    found = results["uncertainty-latents-disturbed-s0"]["figures"]["domains"]
    assert [*found] == ["camvid", "coarse", "paper/hue"]
    assert [*found["camvid"]] == ["one step", "2 masks"]
    before = {path.name: path.read_bytes() for path in (place / "results").iterdir()}
    run(place)
    assert {path.name: path.read_bytes() for path in (place / "results").iterdir()} == before
    document = document_in(place)
    written = write_results(place)
    tables = [line for line in written.splitlines() if line.startswith("|")]
    assert not any("not run" in line for line in tables)
    assert written.count("18 | 18 |") == 1
    for name in ("kl-against-vq", "latents-against-pixels", "domain-shift"):
        assert f"(images/{name}.png)" in written
        assert (document.parent / "images" / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_set_left_out_is_not_trained_on_but_scored(place: Path) -> None:
    plan, folders = load_plan(place / "plan.yaml"), Place
    folder = folders(place / "data", place / "run", place / "recipe.yaml")
    recipe = recipe_of(Model("pixels", False, "coarse"), 3, plan, folder)
    assert [each.weight for each in recipe.data] == [1, 0]
    assert (recipe.training.disturb.share, recipe.training.loop.seed) == (0, 3)
    scale = 2 / 4000
    assert recipe.training.task.late_from == round(2400 * scale)


def test_a_shorter_training_changes_its_loss_and_samples_at_the_same_share_of_its_steps() -> None:
    training = load_yaml(PLAN_FILE.parent / load_plan().recipe, Recipe).training
    shorter = in_steps(training, training.loop.steps // 10, seed=1)
    for name in ("late_from", "balanced_until"):
        assert getattr(shorter.task, name) == round(getattr(training.task, name) / 10)
    assert shorter.rare_until == round(training.rare_until / 10) > 0


@pytest.mark.slow
def test_the_gain_of_adapting_is_measured_on_a_set_never_seen_without_its_labels(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = []

    def adapted(recipe: Any, start: Path, images: Any, *others: Any, **more: Any) -> Any:
        given.append([each.name for each in recipe.data])
        assert all((each.label == UNLABELLED).all() for each in images().samples)
        return run_adaptation(recipe, start, images, *others, **more)

    monkeypatch.setattr(adaptation_work, "run_adaptation", adapted)
    name = "adapt-latents-disturbed-without-coarse-s0"
    run(place, "--only", name)
    result = json.loads((place / "results" / f"{name}.json").read_text(encoding="utf-8"))
    figures = result["figures"]
    assert given == [["camvid"]]  # neither trained on nor a guard
    assert result["n"] == {"images": 9, "frames": 3}
    assert (figures["steps"] == 0) == bool(figures["refused"])
    compared = {"before"} if figures["refused"] else {"before", "labelled alone"}
    assert {*figures["mean_iou"]} == {*compared, "after"}
    assert {*figures["lead_over"]} == compared
    assert str(place) not in json.dumps(result)
    plan = place / "plan.yaml"
    plan.write_text(plan.read_text().replace("changed: [", "changed: [labelled_share=0.3, "))
    run(place, "--list", "--only", name)
    assert "not run with these settings" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="results of other settings must not be replaced: .*adapt"):
        run(place, "--only", name)
    plan.write_text(PLAN, encoding="utf-8")
    run(place, "--only", name)
    assert len(given) == 1
    written = write_results(place)
    row = f"| coarse | 0 | 9 | {figures['steps']} | {figures['mean_iou']['before']:.3f} | "
    assert row in written


def own_camera_options(place: Path) -> list[str]:
    """Options of own_camera.py for a miniature, with a tiny model to start from."""
    for name in ("camvid", "coarse"):
        shutil.rmtree(place / "data" / name / "val")
        write_camvid(place / "data" / name, "val", frames=6, size=(64, 96))
    tiny_lite().save_pretrained(place / "start")
    training = {"batch": 2, "crop": [64, 64]}
    (place / "tune.yaml").write_text(json.dumps({"training": training}), encoding="utf-8")
    return [
        *(f"--{name}={place / name}" for name in ("data", "run", "results")),
        *(f"--model={place / 'start'}", f"--recipe={place / 'recipe.yaml'}"),
        *(f"--config={place / 'tune.yaml'}", f"--scratch={place / 'recipe.yaml'}"),
        *("--pools", "camvid", "coarse", "--frames=2", "--steps=2", "--mining-steps=1"),
        *("--seeds", "0", "1"),
    ]


@pytest.mark.slow
def test_tuning_is_measured_against_scratch_and_mining_against_chance(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = own_camera_options(place)
    document = place / "results.md"
    document.write_text(
        "".join(f"<!-- {x}: begin -->\n<!-- {x}: end -->\n" for x in ("own-camera", "mining"))
    )
    own_camera.main([*options, f"--write={document}"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("14 jobs: 14 done")
    results = {path.stem: json.loads(path.read_text()) for path in (place / "results").iterdir()}
    frames = {name: {*each["figures"]["counts"]} for name, each in results.items()}
    assert len(frames["own-camera-camvid-none"]) == 6
    first = frames["own-camera-camvid-first-s0"]
    assert first == frames["own-camera-camvid-first-from-scratch-s1"]
    assert first == {f"0001TP_{i:06}" for i in range(2, 6)}
    assert len(frames["own-camera-coarse-random-s0"]) == 4
    assert frames["own-camera-coarse-mined-s0"] == frames["own-camera-coarse-mined-s1"]
    text = document.read_text()
    assert "| the model as it is | – |" in text
    assert text.count("| coarse | ") == 3
    assert "14 of 14 jobs were run" in text
    before = {path.name: path.read_bytes() for path in (place / "results").iterdir()}
    own_camera.main([*options, f"--write={document}"])
    assert {path.name: path.read_bytes() for path in (place / "results").iterdir()} == before
    assert document.read_text() == text


def test_the_listing_says_what_was_not_measured_of_an_own_camera(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_camera.main([*own_camera_options(place), "--list"])
    printed = capsys.readouterr().out
    assert printed.count("not run, about") == 14 + 1
    assert printed.count("0 of 14 jobs were run. Not run: 14, about") == 2
    assert not (place / "run").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--frames=6", r"--frames must be 1 to 5, as camvid has 6 in val, got 6"),
        ("--drive=fine", r"--drive and --pools must name sets of recipe.yaml \(camvid, coarse\), "),
        ("--only=nothing", "--only must begin a job's name, got 'nothing'"),
    ],
)
def test_an_own_camera_that_cannot_be_measured_is_refused_first(
    place: Path, option: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        own_camera.main([*own_camera_options(place), option])


def test_a_killed_job_resumes_and_its_time_adds_up(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "reconstruct-vq-16-s0"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(experiment_work.WORK, "reconstruct", killed)
    with pytest.raises(KeyboardInterrupt):
        run(place, "--only", name)
    assert not [*(place / "results").iterdir()]
    (place / "run" / name / "seconds").write_text("1000")
    monkeypatch.setitem(experiment_work.WORK, "reconstruct", experiment_work.reconstruct)
    run(place, "--only", name)
    result = json.loads((place / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert 1000 < result["seconds"] < 1600


def test_a_recipe_that_cannot_be_read_is_one_line(place: Path) -> None:
    (place / "recipe.yaml").write_text("[")
    with pytest.raises(SystemExit, match=r"^recipe must be a recipe in YAML: .*recipe\.yaml"):
        run(place, "--list")


def test_scores_of_a_model_count_only_for_its_training(place: Path) -> None:
    plan = place / "plan.yaml"
    before = {job.name: job.identity() for job in jobs_of(load_plan(plan))}
    plan.write_text(plan.read_text().replace("autoencoder_steps: 2", "autoencoder_steps: 3"))
    same = [job.kind for job in jobs_of(load_plan(plan)) if job.identity() == before[job.name]]
    assert {*same} == {"reconstruct"}


def test_a_result_names_the_commits_of_its_model_and_its_own(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = next(job for job in jobs_of(load_plan(place / "plan.yaml")) if job.kind == "shift")
    assert job.trained_in is not None
    folder = place / "run" / job.trained_in
    folder.mkdir(parents=True)
    (folder / "commits").write_text("aaa\nbbb")
    monkeypatch.setitem(experiment_work.WORK, "shift", lambda *_: ({"frames": 1}, {}))
    monkeypatch.setattr(job_files, "current_commit", lambda *_: "ccc with changes")
    run(place, "--only", job.name)
    result = json.loads((place / "results" / f"{job.name}.json").read_text(encoding="utf-8"))
    assert result["commit"] == "aaa, bbb, ccc with changes"


def test_a_model_that_is_only_used_again_gets_no_further_commit(place: Path) -> None:
    plan = load_plan(place / "plan.yaml")
    job = next(
        each
        for each in jobs_of(plan)
        if each.kind == "shift"
        and isinstance(each.subject, Model)
        and each.subject.head == "latents"
    )
    assert job.trained_in is not None
    assert isinstance(job.subject, Model)
    folder = place / "run" / job.trained_in
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MODEL_CARD.md").touch()
    trained(
        job.subject, job.seed, plan, Place(place / "data", place / "run", place / "recipe.yaml")
    )
    assert not job_files.commits_of(folder)


def test_a_job_that_another_queue_is_at_is_left_to_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "reconstruct-kl-s0"
    (place / "results").mkdir()
    with (
        experiments.alone(place / "results" / f".{name}.lock", name),
        pytest.raises(SystemExit, match="1 of 1 jobs failed"),
    ):
        run(place, "--only", name)
    assert f"{name} must be free: another queue is at work" in capsys.readouterr().err
    assert not [*(place / "results").iterdir()]


def test_a_failing_job_is_named_and_the_others_are_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(job: Job, *_: object) -> tuple[dict[str, int], dict[str, float]]:
        if job.subject == Autoencoder(16):
            raise CamSegError("no memory")
        return {"frames": 1}, {}

    monkeypatch.setitem(experiment_work.WORK, "reconstruct", work)
    with pytest.raises(SystemExit, match="^1 of 3 jobs failed$"):
        run(place, "--only", "reconstruct")
    assert "reconstruct-vq-16-s0: no memory" in capsys.readouterr().err
    run(place, "--list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines if " done in " in line][:-1] == [
        "reconstruct-kl-s0",
        "reconstruct-fsq-4x3-s0",
    ]
    assert lines[-1].startswith("18 jobs: 2 done in 0.0 h, 16 not run, about 0.5 h")


def test_a_result_of_other_settings_counts_as_not_run(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(experiment_work.WORK, "reconstruct", lambda *_: ({"frames": 1}, {}))
    run(place, "--only", "reconstruct-kl")
    plan = place / "plan.yaml"
    plan.write_text(plan.read_text().replace("codebooks: [null, 16,", "codebooks: [null, 32,"))
    run(place, "--list", "--only", "reconstruct-kl")
    assert "1 done" in capsys.readouterr().out.splitlines()[-1]
    recipe = place / "recipe.yaml"
    entries = json.loads(recipe.read_text(encoding="utf-8"))
    recipe.write_text(json.dumps(entries, indent=1) + "\n# the same", encoding="utf-8")
    run(place, "--list", "--only", "reconstruct-kl")
    assert "1 done" in capsys.readouterr().out.splitlines()[-1]
    entries["autoencoder"]["batch"] = 3
    recipe.write_text(json.dumps(entries), encoding="utf-8")
    run(place, "--list", "--only", "reconstruct-kl")
    assert "not run with these settings" in capsys.readouterr().out
    entries["autoencoder"]["batch"] = 2
    recipe.write_text(json.dumps(entries), encoding="utf-8")
    plan.write_text(plan.read_text().replace("disturbances: [0.5]", "disturbances: [0.7]"))
    run(place, "--list", "--only", "reconstruct-kl")
    assert "not run with these settings" in capsys.readouterr().out
    (result,) = (place / "results").iterdir()
    before = result.read_bytes()
    with pytest.raises(SystemExit, match="results of other settings must not be replaced: .*kl"):
        run(place, "--only", "reconstruct-kl")
    assert result.read_bytes() == before
    result.unlink()
    with pytest.raises(SystemExit, match="1 of 1 jobs failed"):
        run(place, "--only", "reconstruct-kl")
    assert "was begun with other settings: remove it" in capsys.readouterr().err


def test_a_job_is_not_resumed_with_other_disturbances_or_libraries(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(experiment_work.WORK, "reconstruct", killed)
    with pytest.raises(KeyboardInterrupt):
        run(place, "--only", "reconstruct-kl")
    monkeypatch.setattr(job_files, "REVISION", 999)
    with pytest.raises(SystemExit, match="1 of 1 jobs failed"):
        run(place, "--only", "reconstruct-kl")
    assert "must be resumed with what it was begun with, {'disturbances'" in capsys.readouterr().err


def test_a_result_names_the_options_that_decide_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(experiment_work.WORK, "reconstruct", lambda *_: ({"frames": 1}, {}))
    run(place, "--only", "reconstruct-kl", "--workers", "0")
    (result,) = (place / "results").iterdir()
    assert json.loads(result.read_text(encoding="utf-8"))["command"] == (
        "python benchmarks/experiments.py --data <data> --plan <plan> --only reconstruct-kl-s0"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "nothing"], "^--only must begin a job's name, got 'nothing': see --list$"),
        (["--plan", "gone.yaml"], "cannot read the configuration gone.yaml"),
    ],
)
def test_what_cannot_be_run_is_one_line(place: Path, options: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        run(place, *options)


def test_two_queues_do_not_share_a_folder(place: Path) -> None:
    (place / "run").mkdir()
    with (
        experiments.alone(place / "run" / "lock", "the folder"),
        pytest.raises(SystemExit, match="^--run .* must be free: another queue is at work$"),
    ):
        run(place)


def test_a_queue_without_data_is_refused(place: Path) -> None:
    with pytest.raises(SystemExit, match="--data must name the folder of the data sets"):
        main([f"--plan={place / 'plan.yaml'}", f"--results={place / 'results'}"])


@pytest.mark.parametrize("part", ["models", "adaptation"])
def test_a_plan_that_leaves_out_an_unknown_set_is_refused(place: Path, part: str) -> None:
    plan = place / "plan.yaml"
    before, section, after = plan.read_text().partition(f"{part}:")
    plan.write_text(before + section + after.replace("left_out: [coarse]", "left_out: [fine]", 1))
    message = rf"{part}.left_out must name sets of recipe.yaml \(camvid, coarse\), got 'fine'"
    with pytest.raises(SystemExit, match=message):
        run(place)


def test_a_plan_that_changes_an_unknown_setting_of_adapting_is_refused_first(place: Path) -> None:
    plan = place / "plan.yaml"
    plan.write_text(plan.read_text().replace("changed: [", "changed: [teaching.more=2, "))
    with pytest.raises(SystemExit, match="more"):
        run(place)
    assert not (place / "run").exists()


def test_a_plan_with_an_unknown_disturbance_is_refused(place: Path) -> None:
    plan = place / "plan.yaml"
    plan.write_text(plan.read_text().replace("weather/fog", "weather/hail"))
    with pytest.raises(ConfigError, match="no disturbance is called 'weather/hail'"):
        load_plan(plan)


# the document


def document_in(place: Path) -> Path:
    """A document with an empty section for each part."""
    document = place / "docs" / "results.md"
    document.parent.mkdir(exist_ok=True)
    document.write_text(
        "".join(
            f"<!-- {name}: begin -->\n<!-- {name}: end -->\n\n"
            for name in (*results.CLAIMS, "experiments")
        )
    )
    return document


def write_results(place: Path) -> str:
    """Write the sections and return the document."""
    document = document_in(place)
    results.main(
        [
            f"--plan={place / 'plan.yaml'}",
            f"--results={place / 'results'}",
            f"--images={document.parent / 'images'}",
            f"--write={document}",
        ]
    )
    return document.read_text(encoding="utf-8")


def write_result(place: Path, job: Job, figures: dict[str, object]) -> None:
    content = {"job": job.identity(), "seconds": 360, "commit": "abc", "machine": "a machine"}
    content["n"] = {"frames": 9}
    folder = place / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{job.name}.json").write_text(json.dumps(content | {"figures": figures}))


def masks(score: float) -> dict[str, object]:
    """Figures of an autoencoder, the same after each budget."""
    figures = {
        "mean_iou": score,
        "boundary_f1": score,
        "thin_iou": score / 2,
        "disturbed": {"0.5": score - 0.1},
        "bits": 4.0,
        "perplexity": 4.0,
    }
    return {"after": {"1": figures, "2": figures}}


def test_without_results_the_document_says_what_was_not_run(place: Path) -> None:
    written = write_results(place)
    assert "0 of 3 jobs were run. Not run: 3, about 3 min on 2 cores." in written
    assert "| together | 18 | 0 | 0.0 | 0.6 |" in written
    assert "images/" not in written


def test_a_lead_over_seeds_decides_only_where_its_interval_leaves_out_0(place: Path) -> None:
    plan = place / "plan.yaml"
    plan.write_text(plan.read_text().replace("seeds: [0]", "seeds: [0, 1, 2]"))
    for job in jobs_of(load_plan(plan)):
        if job.subject == Autoencoder(None):
            write_result(place, job, masks(0.9 + 0.01 * job.seed))
        if job.subject == Autoencoder(16):
            write_result(place, job, masks(0.8 + 0.01 * job.seed))
        if job.subject == Autoencoder((4, 3)) and job.seed == 1:
            write_result(place, job, masks(0.7))
    written = write_results(place)
    assert (
        "After 2 steps, KL's lead over VQ, 16 entries (the only codebook with 3 seeds) is "
        "**+0.100 (+0.100 to +0.100)** in mean IoU (it leads) and **+0.100 (+0.100 to +0.100)** in "
        "boundary F1 (it leads). Left out of this as they have fewer seeds: FSQ, 4×3."
    ) in " ".join(written.split())
    reach = 4.303 * 0.01 / 3**0.5
    assert f"| KL | 2 | 0.910 ({0.91 - reach:.3f} to {0.91 + reach:.3f}) |" in written
    assert "| FSQ, 4×3 | 2 | 0.700 |" in written
    for row in written.splitlines():
        if row.startswith("| FSQ, 4×3 |"):
            assert row.endswith("| 1 of 3 |")
        if row.startswith("| KL |"):
            assert row.endswith("| 3 of 3 |")
    listed = " ".join(written.split())
    assert "Not run: all seeds of `train-latents-disturbed`," in listed
    assert "; seeds 0, 2 of `reconstruct-fsq-4x3`." in listed
    assert "7 of 9 jobs were run, in 0.7 h; a machine; commit abc." in written
    assert "In each result, `reconstruct`: 9 frames." in listed


def test_errors_on_unseen_sets_are_counted_once_every_set_was_left_out(place: Path) -> None:
    plan = place / "plan.yaml"
    plan.write_text(plan.read_text().replace("left_out: [coarse]", "left_out: [camvid, coarse]"))
    for score, left_out in ((0.8, "camvid"), (0.6, "coarse")):
        columns = {"error_rate": 0.1, "auroc": score, "aurc": 0.02}
        methods = {"one step": columns, "2 masks": columns}
        domains = dict.fromkeys(("camvid", "coarse", "paper/hue"), methods)
        for job in jobs_of(load_plan(plan)):
            if job.kind == "uncertainty" and job.subject == Model("latents", True, left_out):
                write_result(place, job, {"domains": domains})
        unseen = write_results(place).partition("| a set that the training never saw |")[2]
        shown = "not run" if left_out == "camvid" else "0.100 | 0.700 | 0.020"
        assert unseen.startswith(f" one step | {shown}")


def test_the_results_page_is_what_the_results_make(tmp_path: Path) -> None:
    document = Path(results.__file__).parents[1] / "docs" / "results.md"
    copy = tmp_path / "results.md"
    copy.write_bytes(document.read_bytes())
    results.main([f"--images={tmp_path / 'images'}", f"--write={copy}"])
    assert copy.read_text(encoding="utf-8") == document.read_text(encoding="utf-8"), (
        "run: python benchmarks/results.py --write docs/results.md"
    )


# intervals


def counts(*right: int, of: int = 100) -> np.ndarray:
    """Frames of two classes with as many right pixels each; the others are mistaken for both."""
    hits = np.array(right)[:, None].repeat(2, 1)
    every = np.full_like(hits, of)
    return np.stack([hits, every, every], 1)


def test_student_intervals_by_hand() -> None:
    estimate = over_seeds([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.n) == (2, 3)
    assert estimate.high - estimate.mean == pytest.approx(4.303 / 3**0.5)
    assert over_seeds([0.5]).text(3) == "0.500, 1 of 3 seeds"
    assert over_seeds([]).text(3) == "not run"


def test_scores_of_counts_by_hand() -> None:
    one = np.array([[8, 0, 0], [10, 5, 0], [8, 0, 1]])  # the third is predicted, but not labelled
    assert mean_iou(one) == pytest.approx((0.8 + 0) / 2)
    assert average_precision(one) == pytest.approx((1 + 0) / 2)
    assert kept(one, one) == 1
    clean = np.array([[8, 0, 0], [10, 5, 0], [8, 0, 0]])
    assert kept(one, clean) == kept_precision(one, clean) == 1
    other_view = np.array([[8, 0, 4], [10, 0, 4], [8, 0, 4]])
    assert kept(other_view, clean) == 1, "over the classes that both show"


def test_a_paired_lead_is_narrow_where_both_fail_on_the_same_frames() -> None:
    """Frames differ much, but one side is better by a pixel everywhere: it leads for certain."""
    frames = np.random.default_rng(0).integers(20, 80, 40)
    ours = [[counts(*(frames + 1 + seed))] for seed in range(3)]
    theirs = [[counts(*(frames + seed))] for seed in range(3)]
    lead = paired_lead(ours, theirs, mean_iou)
    assert lead.decided
    assert 0 < lead.low < lead.mean < lead.high < 0.02
    other = [[counts(*np.roll(frames, 7))] for _ in range(3)]
    assert not paired_lead([[counts(*frames)]] * 3, other, mean_iou).decided
    assert paired_lead(ours, theirs, mean_iou) == lead


def test_three_seeds_that_differ_by_chance_decide_one_time_in_twenty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 20)  # the frames are alike
    random = np.random.default_rng(0)
    decided = 0
    for _ in range(200):
        leads = random.normal(0, 4, 3).round().astype(int)
        frames = np.full(5, 50)
        ours = [[counts(*(frames + lead))] for lead in leads]
        decided += paired_lead(ours, [[counts(*frames)]] * 3, mean_iou).decided
    assert decided / 200 < 0.1


def test_the_quantiles_go_on_beyond_the_table() -> None:
    for n, quantile in ((4, 3.182), (5, 2.776), (11, 2.228)):
        estimate = over_seeds([0.0, 2.0] + [1.0] * (n - 2))
        spread = (2 / (n - 1)) ** 0.5 / n**0.5
        assert (estimate.high - estimate.mean) / spread == pytest.approx(quantile, rel=0.006)


def test_one_seed_decides_nothing() -> None:
    frames = np.random.default_rng(0).integers(20, 80, 40)
    lead = paired_lead([[counts(*(frames + 9))]], [[counts(*frames)]], mean_iou)
    assert lead.low > 0
    assert not lead.decided
    assert result_parts.decision(lead, 3) == "inconclusive with one seed"


# viewpoints


def horizon() -> Sample:
    """Sky over road, with a pole in the middle."""
    label = np.full((120, 160), 10, np.uint8)
    label[60:] = 0
    label[40:80, 78:82] = 5
    return Sample(np.repeat(label[..., None] * 20, 3, 2), label, "horizon")


def test_a_camera_that_looks_down_sees_more_of_the_road() -> None:
    before, after = horizon(), turned(horizon(), pitch=10)
    column = after.label[:, 20]
    rows = np.flatnonzero(column == 0)
    moved = 0.85 * 160 * math.tan(math.radians(10))
    assert rows[0] == pytest.approx(60 - moved, abs=1.5)
    assert (after.label == UNLABELLED).any()
    assert after.image.shape == before.image.shape
    assert np.array_equal(turned(before).label, before.label)
    seen = after.label != UNLABELLED
    assert (after.image[..., 0] == after.label * 20)[seen].mean() > 0.95


def test_a_camera_turned_clockwise_sees_the_horizon_turned_the_other_way() -> None:
    label = turned(horizon(), roll=10).label
    left, right = (np.flatnonzero(label[:, column] == 0)[0] for column in (20, 140))
    slope = (left - right) / 120
    assert slope == pytest.approx(math.tan(math.radians(10)), abs=0.03)


def test_a_longer_lens_shows_the_middle_larger() -> None:
    label = zoomed(horizon(), 0.5).label
    assert (label == 5).sum() == pytest.approx(4 * 40 * 4, rel=0.1)
    assert label.shape == (120, 160)
    assert set(np.unique(label)) <= {label.id for label in CITYSCAPES}


def test_a_higher_camera_sees_the_road_from_farther_above() -> None:
    low, high = (replace(SyntheticDrive(2), camera_height=height)[0] for height in (1.4, 3.0))
    assert np.array_equal(low.label, SyntheticDrive(2)[0].label)
    assert not np.array_equal(low.label, high.label)
    with pytest.raises(ConfigError, match=r"camera_height must be from 0.3 to 10 m, got 0.1"):
        SyntheticDrive(camera_height=0.1)


def test_the_experiments_module_names_what_is_not_run(tmp_path: Path) -> None:
    jobs = jobs_of(load_plan())
    lines = experiments.listing(jobs[:2], tmp_path)
    assert all("not run, about 22 min" in line for line in lines[:2])
    assert lines[-1] == "2 jobs: 0 done in 0.0 h, 2 not run, about 0.7 h on 2 cores"
