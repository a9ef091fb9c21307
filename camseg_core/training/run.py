"""What all recipes share: data, a check of the batch, the configuration in the run folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camseg_core.atomic_write import atomic_write
from camseg_core.config.yaml_file import load_yaml, to_yaml
from camseg_core.data.sample import Samples
from camseg_core.data.sets import open_set
from camseg_core.errors import ConfigError
from camseg_core.labels import Label
from camseg_core.training.distributed import Processes
from camseg_core.training.frames import Frames
from camseg_core.training.kl_autoencoder import PictureAutoencoderTraining
from camseg_core.training.light_decoder import LightDecoderTraining
from camseg_core.training.mask_autoencoder import AutoencoderTraining
from camseg_core.training.transformer import TransformerTraining

Training = (
    AutoencoderTraining | PictureAutoencoderTraining | LightDecoderTraining | TransformerTraining
)


@dataclass(frozen=True)
class TrainingData:
    """The splits `train` and `val` of a data set: as samples in train ids, and as frames.

    `labels` are the classes of the frames' indices.
    """

    kind: str
    train_samples: Samples
    val_samples: Samples
    train: Frames
    val: Frames
    labels: tuple[Label, ...]

    @staticmethod
    def load(kind: str, root: Path, labels: tuple[Label, ...] | None = None) -> "TrainingData":
        """Open the data set `root`; `labels` are by default its own.

        Raises:
            ConfigError: there is no such kind of data set.
            DataError: a split is missing or empty, or a file cannot be read.
        """
        train = open_set(kind, root, "train")
        labels = labels or train.labels
        train_frames = Frames.load(train.samples, labels)
        val = open_set(kind, root, "val").samples
        val_frames = Frames.load(val, labels)
        return TrainingData(kind, train.samples, val, train_frames, val_frames, labels)


def check_batch(training: Training, processes: Processes) -> None:
    """Check that the processes can share a batch.

    Raises:
        ConfigError: they cannot share it evenly.
    """
    processes.samples(0, training.batch, parts=training.loop.grad_accum_steps)


def keep_config(recipe: Any, run: Path, processes: Processes) -> None:
    """Write the configuration to the run folder, or check that it is the one already there.

    Entries that an older file lacks have their defaults.

    Raises:
        ConfigError: the run was started with another configuration, or the processes do not see
            the same folder.
    """
    processes.check_shared(run)
    path = run / "config.yaml"
    known = path.is_file()
    if known and not _describes(path, recipe):
        raise ConfigError(
            f"{path} differs from the configuration given: use the one that the run was started "
            "with, or another --run"
        )
    processes.wait()  # no process writes while another reads
    if processes.is_main_process and not known:
        run.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(to_yaml(recipe), encoding="utf-8")


def _describes(path: Path, recipe: Any) -> bool:
    try:
        return bool(load_yaml(path, type(recipe)) == recipe)
    except ConfigError:
        return False
