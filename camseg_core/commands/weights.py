"""`camseg weights`: the published weights as checkpoint folders."""

import argparse
import logging
import os
import sys
from pathlib import Path

from camseg_core.commands.extras import packages_for
from camseg_core.errors import ConfigError
from camseg_core.weights import bundled_models, checkpoint_folder
from camseg_core.weights.catalogue import PUBLISHED, published_model

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = "Get the published weights, or import their files, as a checkpoint folder; nothing in the files is run."
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="the models that came with the package, and those that can be had")
    listing.set_defaults(run=_list)
    pulling = actions.add_parser("pull", help="download a published model and import it")
    pulling.add_argument("name", metavar="NAME", help=f"one of {', '.join(model.name for model in PUBLISHED)}")
    pulling.add_argument("--revision", help="branch, tag or commit of its repository (default: the newest)")
    _add_import_options(pulling)
    pulling.set_defaults(run=_pull)
    importing = actions.add_parser("import", help="import the two published files")
    importing.add_argument("--autoencoder", type=Path, required=True, metavar="FILE", help="as modelf16.ckpt")
    importing.add_argument("--transformer", type=Path, required=True, metavar="FILE", help="as city768.16.pth")
    importing.add_argument("--config", type=Path, metavar="FILE", help="config.json of other sizes (default: those of cam-seg-base-768)")
    _add_import_options(importing)
    importing.set_defaults(run=_import)


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ema", action="store_true", help="take the running average of the transformer's weights")
    parser.add_argument("--dtype", choices=list(_DTYPES), default="fp32", help="how weights are stored (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="the checkpoint folder to write (default: the model's name)")


def _list(options: argparse.Namespace) -> None:
    lines = []
    for name in bundled_models():
        size = sum(path.stat().st_size for path in checkpoint_folder(name).rglob("*") if path.is_file())
        lines.append(f"{name}: came with the package, {size / 1e6:.0f} MB; see its MODEL_CARD.md")
    lines += [f"{model.name}: {model.about}; camseg weights pull {model.name}" for model in PUBLISHED]
    sys.stdout.write("\n".join(lines) + "\n")


def _pull(options: argparse.Namespace) -> None:
    model = published_model(options.name)
    out = _writable(options.out or Path(model.name))
    with packages_for("importing weights", "train"):
        import torch  # noqa: F401  # before gigabytes are downloaded
    with packages_for("downloading weights", "weights"):
        from camseg_core.weights.hub import pull
    _log_to_stderr()
    pulled = pull(model, options.revision)
    _import_files(pulled.autoencoder, pulled.transformer, None, out, options)


def _import(options: argparse.Namespace) -> None:
    _log_to_stderr()
    _import_files(options.autoencoder, options.transformer, options.config, _writable(options.out or Path(PUBLISHED[0].name)), options)


def _import_files(autoencoder: Path, transformer: Path, config: Path | None, out: Path, options: argparse.Namespace) -> None:
    with packages_for("importing weights", "train"):
        import torch

        from camseg_core.model.config import load_config
        from camseg_core.model.sizes import CAM_SEG_BASE_768
        from camseg_core.weights.published import import_published
    sizes = CAM_SEG_BASE_768 if config is None else load_config(config)
    import_published(autoencoder, transformer, out, options.ema, sizes, getattr(torch, _DTYPES[options.dtype]))
    sys.stdout.write(f"wrote {out}; next: camseg export --model {out}\n")


def _writable(folder: Path) -> Path:
    """The folder, made.

    Raises:
        ConfigError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"--out {folder} cannot be written to: check its permissions")
    return folder


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("camseg_core").setLevel(logging.INFO)
