"""`camseg weights`: download or import published weights, and list models."""

import argparse
from pathlib import Path

from camseg_core.cli.console import print_lines
from camseg_core.cli.options import packages_for
from camseg_core.config.model import CamSegConfig, load_config
from camseg_core.errors import camseg_command
from camseg_core.weights import BUNDLED_TERMS, PUBLISHED, bundled_models, checkpoint_folder


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.description = (
        "Download or import published weights as a checkpoint folder. No code in a published file "
        "is run."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    listing = commands.add_parser("list", help="list bundled models and published ones")
    listing.set_defaults(run=_list)

    pull = commands.add_parser(
        "pull", help="download a published model from the Hugging Face hub and import it"
    )
    pull.add_argument(
        "name",
        choices=list(PUBLISHED),
        metavar="NAME",
        help=f"published weights: {', '.join(PUBLISHED)}",
    )
    pull.add_argument(
        "--revision",
        metavar="R",
        help="a branch, tag or commit of the repository (default: its main branch)",
    )
    _add_import_options(pull)
    pull.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="the checkpoint folder to write (default: the model's name)",
    )
    pull.set_defaults(run=_pull)

    importing = commands.add_parser("import", help="import published files from this machine")
    for name, text in (
        ("--autoencoder", "the image autoencoder, such as modelf16.ckpt"),
        ("--transformer", "transformer and head, such as city768.16.pth"),
    ):
        importing.add_argument(name, type=Path, required=True, metavar="FILE", help=text)
    _add_import_options(importing)
    importing.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the checkpoint folder to write"
    )
    importing.set_defaults(run=_import)


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ema",
        action="store_true",
        help="use the exponential moving average of the transformer's weights (model_ema)",
    )
    parser.add_argument(
        "--dtype",
        choices=["fp32", "fp16", "bf16"],  # published.DTYPES, which needs torch
        default="fp32",
        help="type that stores matrices and kernels; vectors stay fp32",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="config.json of a model with the published layout in another size (default: as "
        "published)",
    )


def _list(options: argparse.Namespace) -> None:
    row = "{:<18} {:<10} {:>9}  {}".format
    lines = [row("model", "", "size", "terms")]
    for name in bundled_models():
        files = (path for path in checkpoint_folder(name).rglob("*") if path.is_file())
        size = sum(path.stat().st_size for path in files) / 1e6
        terms = BUNDLED_TERMS.get(name, "see its MODEL_CARD.md")
        lines.append(row(name, "bundled", f"{size:.0f} MB", terms))
    for name, model in PUBLISHED.items():
        size = model.parameters * 4  # millions of parameters, 4 bytes each
        lines += [
            row(name, "published", f"{size:.0f} MB", model.terms),
            row("", "", "", f"{model.autoencoder} and {model.transformer}"),
            row(
                "",
                "",
                "",
                f"of {model.repository} on the Hugging Face hub: "
                f"{camseg_command()} weights pull {name}",
            ),
        ]
    lines.append(
        "sizes: the folder's; for published models, once imported in fp32. `camseg weights pull` "
        "prints the size of a download."
    )
    print_lines(*lines)


def _pull(options: argparse.Namespace) -> None:
    model = PUBLISHED[options.name]
    with packages_for("downloading weights", "weights"):
        from camseg_core.weights.hub import download
        from camseg_core.weights.published import empty_folder, published_shapes
    config = _config(options, model.config)
    published_shapes(config)  # this and empty_folder may fail, so they precede the download
    out = options.out or Path(options.name)
    empty_folder(out)
    autoencoder, transformer = download(
        model.repository, (model.autoencoder, model.transformer), options.revision, print_lines
    )
    _import_files(options, autoencoder, transformer, out, config)


def _import(options: argparse.Namespace) -> None:
    config = _config(options, next(iter(PUBLISHED.values())).config)
    _import_files(options, options.autoencoder, options.transformer, options.out, config)


def _config(options: argparse.Namespace, published: CamSegConfig) -> CamSegConfig:
    return published if options.config is None else load_config(options.config)


def _import_files(
    options: argparse.Namespace,
    autoencoder: Path,
    transformer: Path,
    out: Path,
    config: CamSegConfig,
) -> None:
    with packages_for("importing weights", "weights"):
        from camseg_core.weights.published import DTYPES, import_published
    imported = import_published(
        autoencoder, transformer, out, config, options.ema, DTYPES[options.dtype]
    )
    if imported.arguments:
        print_lines(
            "trained with, according to the file: "
            + " ".join(f"{name}={value}" for name, value in sorted(imported.arguments.items()))
        )
    ignored = (
        f"; {imported.ignored} tensors of the autoencoder's training loss left out"
        if imported.ignored
        else ""
    )
    print_lines(
        f"{imported.folder}: {imported.parameters / 1e6:.1f} million parameters of {config.name}"
        f"{ignored}"
    )
    print_lines(
        f"export the graphs for the runtime: {camseg_command()} export --model {imported.folder}"
    )
