"""Commands on damaged files, odd names and odd options: one line and an exit code, no traceback.

`CAMSEG_FUZZ=1000` tries more than the test's own number of inputs, `CAMSEG_FUZZ_SEED` others.
"""

import io
import os
import random
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import odd_files
import pytest
import torch
from recorded import drive, labelled_bag, painter

from camseg_core.cli import main as cli
from camseg_core.runtime import Segmenter
from camseg_core.weights import checkpoint_folder

TRIES = int(os.environ.get("CAMSEG_FUZZ", "12"))
SEED = int(os.environ.get("CAMSEG_FUZZ_SEED", "0"))

MAPPING = "ids: {road: [0], car: [13], unlabelled: [255]}\nothers: unlabelled\nstretch: 1.5\n"
SCENARIO = "start_s: 0\nend_s: 9\nmin_miou: 0.5\nmin_iou: {road: 0.9}\nmax_drops: 0\n"

Arguments = list[object]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return the content with one to three random damages."""
    for _ in range(chance.randint(1, 3)):
        at, size = chance.randrange(len(content) + 1), chance.choice([1, 2, 4, 16, 200])
        some = chance.randbytes(size)
        content = chance.choice(
            [
                content[:at],
                content[:at] + some + content[at + size :],
                content[:at] + some + content[at:],
                content[:at] + content[at + size :],
                content[:at] + bytes(size) + content[at + size :],
                content[:at] + b"\xff" * min(size, 8) + content[at + size :],
                content + content[at:],
            ]
        )
    return content


def damage_one(folder: Path, chance: random.Random, pattern: str = "**/*") -> None:
    """Damage one of the files in a folder."""
    path = chance.choice(sorted(each for each in folder.glob(pattern) if each.is_file()))
    path.write_bytes(damaged(path.read_bytes(), chance))


def odd_name(chance: random.Random) -> str:
    """Return a name that a file system takes."""
    parts = [b"\xff", b"\n", b" ", b"-", b"--", b"%s", b"{}", b"{0}", b"'", b'"', b"\\", b"#", b"?"]
    parts += [
        b"[red]",
        b"*",
        b"\x1b[2J",
        b"\x7f",
        "ü".encode(),
        "道".encode(),
        b"a" * 60,
        b":",
        b"$",
    ]
    return os.fsdecode(b"".join(chance.choices(parts, k=chance.randint(1, 4))) + b"x")


def write_set(root: Path) -> Path:
    """Write a labelled set of two frames, with a mapping and a list."""
    for name in ("a", "b"):
        for kind, picture in (("images", odd_files.PICTURE), ("labels", odd_files.ids)):
            path = root / kind / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(odd_files.encoded(".png", picture))
    (root / "mapping.yaml").write_text(MAPPING)
    (root / "val.txt").write_text("images/a.png labels/a.png\nimages/b.png labels/b.png\n")
    return root


def picture(folder: Path, chance: random.Random) -> Arguments:
    """A damaged picture."""
    suffix = chance.choice([".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm"])
    path = folder / f"picture{suffix}"
    path.write_bytes(damaged(odd_files.encoded(suffix), chance))
    return chance.choice(
        [["segment", path, "--out", "out"], ["bag", "make", "new", "--source", path]]
    )


def video(folder: Path, chance: random.Random) -> Arguments:
    """A damaged video."""
    path = folder / f"video{chance.choice(['.mp4', '.avi', '.mkv'])}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (64, 48))
    for _ in range(3):
        writer.write(odd_files.PICTURE)
    writer.release()
    path.write_bytes(damaged(path.read_bytes(), chance))
    return ["bag", "make", "new", "--source", path]


def labelled_set(folder: Path, chance: random.Random) -> Arguments:
    """A labelled set with one damaged file: picture, label, mapping or list."""
    root = write_set(folder / "set")
    damage_one(root, chance)
    data = chance.choice([root, root / "val.txt"])
    return chance.choice(
        [
            ["data", "check", data, "--sheet", "out.png"],
            ["evaluate", "--data", data, "--out", "out"],
        ]
    )


def recorded(folder: Path, chance: random.Random) -> Arguments:
    """A bag with one damaged file."""
    labelled_bag(folder / "bag", drive(3))
    damage_one(folder / "bag", chance)
    labels = chance.choice([[], ["--labels", "/camera/labels"]])
    source = chance.choice([folder / "bag", *(folder / "bag").glob("*.mcap")])
    return ["bag", "evaluate", source, "--out", "out", *labels]


def scenario(folder: Path, chance: random.Random) -> Arguments:
    """A damaged scenario."""
    labelled_bag(folder / "bag", drive(2))
    path = folder / "limits.yaml"
    path.write_bytes(damaged(SCENARIO.encode(), chance))
    return ["bag", "evaluate", folder / "bag", "--out", "out", "--scenario", path]


def model(folder: Path, chance: random.Random) -> Arguments:
    """A checkpoint folder with one damaged description."""
    shutil.copytree(checkpoint_folder("camseg-lite"), folder / "model")
    damage_one(folder / "model", chance, "*.json")
    write_set(folder / "set")
    command = ["segment", folder / "set/images", "--out", "out", "--provider", "cpu"]
    return [*command, "--model", folder / "model"]


def recipe(folder: Path, chance: random.Random) -> Arguments:
    """A damaged training configuration."""
    path = folder / "recipe.yaml"
    original = Path(__file__).parents[2] / "config/train/mask-autoencoder.yaml"
    path.write_bytes(damaged(original.read_bytes(), chance))
    folders = ["--data", folder / "nothing", "--run", folder / "run", "--out", folder / "out"]
    return ["train-autoencoder", "--config", path, *folders]


def weights(folder: Path, chance: random.Random) -> Arguments:
    """Damaged files of published weights."""
    content = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(3)}, "args": {"x": 1}}, content)
    for file in ("a.ckpt", "b.pth"):
        (folder / file).write_bytes(damaged(content.getvalue(), chance))
    files = ["--autoencoder", folder / "a.ckpt", "--transformer", folder / "b.pth"]
    return ["weights", "import", *files, "--out", folder / "out"]


def name(folder: Path, chance: random.Random) -> Arguments:
    """Odd names of inputs and outputs."""
    root = write_set(folder / odd_name(chance))
    (root / "images/a.png").rename(root / "images" / f"{odd_name(chance)}.png")
    out = folder / odd_name(chance)
    labels = sorted((root / "labels").iterdir())
    labels[0].rename(labels[0].with_name(sorted((root / "images").iterdir())[0].name))
    return chance.choice(
        [
            ["segment", root / "images", "--out", out],
            ["data", "check", root, "--sheet", f"{out}.png"],
            ["evaluate", "--data", root, "--out", out, "--write-masks", out / "masks"],
            ["bag", "make", out, "--source", root / "images"],
            ["bag", "evaluate", root, "--out", out],
            ["segment", root, "--out", out],
        ]
    )


def bag_name(folder: Path, chance: random.Random) -> Arguments:
    """Odd names of bags, topics and frames."""
    bag, topic = folder / odd_name(chance), chance.choice(["/a", "/ü", "/a\nb", "/[red]", "x"])
    labelled_bag(bag, drive(2), images=topic, frame_id=chance.choice(["", "ü", "\n", "<b>"]))
    if chance.random() < 0.3:
        (bag / "metadata.yaml").unlink()
    masks = ["--write-bag", folder / odd_name(chance), "--mask-topic", "/m"]
    command = ["bag", "evaluate", bag, "--out", folder / odd_name(chance)]
    labels = chance.choice([[], ["--labels", "/camera/labels"]])
    return [*command, *labels, *chance.choice([[], masks])]


def option(folder: Path, chance: random.Random) -> Arguments:
    """Odd values of options."""
    root = write_set(folder / "set")
    values = [
        "",
        "-1",
        "0",
        "nan",
        "inf",
        "1e99",
        "x",
        "\udcff",
        "9" * 40,
        "/dev/null",
        "٣",
        "-",
    ]
    command: Arguments = chance.choice(
        [
            ["segment", root / "images", "--out", "out"],
            ["data", "check", root, "--sheet", "out.png"],
            ["evaluate", "--data", root, "--out", "out"],
            ["bag", "make", "new", "--source", root / "images"],
            ["bag", "evaluate", root, "--out", "out"],
        ]
    )
    options = ["--frames", "--out", "--threads", "--sampler", "--steps", "--split", "--dataset"]
    options += ["--mapping", "--labels", "--fps", "--topic", "--opacity", "--sheet", "--seed"]
    options += ["--sheet-frames", "--tolerance", "--scenario", "--model", "--protocol", "--format"]
    for _ in range(chance.randint(1, 2)):
        command += [f"{chance.choice(options)}={chance.choice(values)}"]
    return command


KINDS: tuple[Callable[[Path, random.Random], Arguments], ...] = (
    picture,
    video,
    labelled_set,
    recorded,
    scenario,
    recipe,
    weights,
    name,
    bag_name,
    option,
    model,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_input_ends_a_command_with_a_traceback(
    kind: Callable[[Path, random.Random], Arguments],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind is not model:
        monkeypatch.setattr(Segmenter, "from_pretrained", lambda *_, **__: painter())
    warnings.simplefilter("ignore")
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        arguments = kind(folder, random.Random(f"{SEED} {kind.__name__} {number}"))
        try:
            cli.main([*map(str, arguments)])
            code: object = 0
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException as error:
            raise AssertionError(f"{number}: {arguments} raised {error!r}") from error
        _, err = capfd.readouterr()
        assert code in (0, 1, 2), (number, arguments, code)
        assert "Traceback" not in err, (number, arguments, err)
        lines = [line for line in err.splitlines() if re.match(r"camseg.*error: ", line)]
        assert len(lines) == (code == 2), (number, arguments, code, err)
        shutil.rmtree(folder)
