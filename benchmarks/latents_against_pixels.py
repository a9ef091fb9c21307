"""Compare the robustness of camseg-lite and of a peer without a latent space, on CamVid val.

    python benchmarks/plain_head.py --data <CamVid root> --run runs/plain-head
    python benchmarks/latents_against_pixels.py --data <CamVid root> --peer runs/plain-head

The peer has the same encoder and transformer, a plain pixel head and as many weights, and is
trained the same way, see `plain_head.py`. Both run in fp32. `--out` keeps partial results, with
which an interrupted run resumes, and the page.
"""

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from document import (
    Outcome,
    add_document_options,
    conclude,
    current_commit,
    machine,
    picture,
)
from plain_head import PlainSegmenter
from robustness_figures import (
    ONE_STEP,
    PEER,
    TEN_STEPS,
    clean_table,
    family_table,
    plot,
    series_table,
    tally,
)

from camseg_core.data.sets import open_set
from camseg_core.evaluation.report.robustness import robustness_content, write_robustness
from camseg_core.evaluation.robustness import Contender, Work, run_suite
from camseg_core.evaluation.robustness_suite import SUITE, selected
from camseg_core.labels import CAMVID_11_TRAIN_IDS, cityscapes_labels
from camseg_core.long_runs import shown_progress
from camseg_core.runtime import Segmenter
from camseg_core.weights import DEFAULT_MODEL, checkpoint_folder


def contenders(arguments: argparse.Namespace) -> tuple[dict[str, Contender], dict[str, str]]:
    """What is compared, and for each a text that changes when its masks would."""
    model, peer = checkpoint_folder(DEFAULT_MODEL), arguments.peer / "plain-head.safetensors"
    graphs = sorted([model / "config.json", *(model / "onnx" / "fp32").glob("*")])
    found: dict[str, Contender] = {ONE_STEP: Segmenter.from_pretrained(model, precision="fp32")}
    if arguments.ten_steps:
        found[TEN_STEPS] = Segmenter.from_pretrained(
            model, precision="fp32", sampler="ddim", steps=10
        )
    files = {name: [*graphs] for name in found} | {
        PEER: [peer, Path(__file__).with_name("plain_head.py")]
    }
    found[PEER] = PlainSegmenter(peer)
    return found, {name: f"{name} {_digest(paths)}" for name, paths in files.items()}


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the suite, leave page and JSON in `--out`, and return what `robustness.json` holds."""
    shown, identities = contenders(arguments)

    def progress(work: Work, total: int) -> Work:
        return shown_progress(work, total, "disturb and segment") if total else work

    robustness = run_suite(
        shown,
        open_set("camvid", arguments.data, "val").samples,
        cityscapes_labels(CAMVID_11_TRAIN_IDS),
        selected(arguments.only) if arguments.only else SUITE,
        frames=arguments.frames,
        keep=arguments.out / "parts",
        identities=identities,
        progress=progress,
        about={"data": "CamVid val", "precision": "fp32"},
    )
    write_robustness(robustness, arguments.out)
    return robustness_content(robustness)


def measure(arguments: argparse.Namespace) -> Outcome:
    """Compare, plot, and say what came out."""
    content = compare(arguments)
    trained = json.loads((arguments.peer / "result.json").read_text(encoding="utf-8"))
    pictures = []
    for families, text in (
        (("paper",), "the paper's disturbances"),
        (("common", "weather"), "common corruptions and weather"),
    ):
        if any(series["family"] in families for series in content["series"]):
            path = arguments.plot.with_name(
                f"{arguments.plot.stem}-{families[0]}{arguments.plot.suffix}"
            )
            plot(content, families, path)
            pictures.append(
                picture(
                    argparse.Namespace(plot=path, write=arguments.write),
                    f"Kept of the undisturbed score under {text}",
                )
            )
    options = [
        "--data <CamVid root> --peer runs/plain-head",
        *([f"--frames {arguments.frames}"] if arguments.frames else []),
        *([f"--only {' '.join(arguments.only)}"] if arguments.only else []),
        *(["--ten-steps"] if arguments.ten_steps else []),
    ]
    below = [
        *("\n".join(lines) for lines in (family_table(content), series_table(content))),
        tally(content),
        *pictures,
        "    python benchmarks/plain_head.py --data <CamVid root> --run runs/plain-head\n"
        f"    python benchmarks/latents_against_pixels.py {' '.join(options)} "
        "--write docs/results.md",
        f"{content['frames']} frames, fp32; {machine()}; "
        f"commit {current_commit('camseg_core', 'benchmarks')}. "
        f"The peer: {trained['parameters'] / 1e6:.2f} million weights, "
        f"commit {trained['commit']}, {trained['machine']}.",
    ]
    return Outcome("\n".join(clean_table(content)), below, content)


def main() -> None:
    """Print the tables; with `--json` what `robustness.json` holds as the last line."""
    parser = argparse.ArgumentParser(
        description="camseg-lite and a peer without a latent space under the robustness suite."
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="CamVid root with val/images and val/labels"
    )
    parser.add_argument(
        "--peer",
        type=Path,
        required=True,
        metavar="RUN",
        help="the folder that plain_head.py was run in",
    )
    parser.add_argument(
        "--frames", type=int, help="use so many frames, evenly spread over val (default: all)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="NAME",
        help="families or disturbances, as in paper weather/fog",
    )
    parser.add_argument(
        "--ten-steps", action="store_true", help="also camseg-lite with ten steps of DDIM"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/latents-against-pixels"),
        help="for page, JSON and what is done so far",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        default=Path("docs/images/robustness.png"),
        help="begins the names of the pictures to write",
    )
    add_document_options(parser)
    conclude(parser.parse_args(), "robustness", measure)


if __name__ == "__main__":
    main()
