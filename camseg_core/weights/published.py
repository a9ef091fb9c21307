"""Imports a model's published files: checks names, shapes and numbers, and runs nothing in them."""

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from camseg_core.config.model import CamSegConfig
from camseg_core.errors import CamSegError, ConfigError, ModelDifferences, ModelError
from camseg_core.long_runs import writable_folder
from camseg_core.model.camseg import CamSeg
from camseg_core.weights.pickle_reader import Inert, StoredTensor
from camseg_core.weights.torch_file import TorchFile

Shapes = dict[str, tuple[int, ...]]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_HEAD = "diffloss.net."
_LOSS = "loss."
_AUTOENCODER, _TRANSFORMER = "autoencoder", "transformer"
_ENTRY = {_AUTOENCODER: "state_dict", _TRANSFORMER: "model"}
_EMA = "model_ema"


@dataclass(frozen=True)
class Imported:
    """What an import wrote."""

    folder: Path
    parameters: int
    ignored: int
    """Tensors of the autoencoder's training loss."""
    arguments: dict[str, str] = field(default_factory=dict)
    """The plain entries of the transformer's training command line, safe to print."""


def published_shapes(config: CamSegConfig) -> tuple[Shapes, Shapes]:
    """Return names and shapes in the autoencoder's and in the transformer's file.

    Raises:
        ConfigError: the configuration has another layout.
    """
    if (
        config.autoencoder is None
        or config.transformer.fusion != "sequence"
        or config.light_decoder is not None
    ):
        raise ConfigError(
            f"{config.name} does not have the published layout: an image autoencoder, "
            "fusion sequence and no light decoder"
        )
    with torch.device("meta"):
        model = CamSeg(config)
    assert model.autoencoder is not None
    rest = dict(model.transformer.state_dict()) | {
        f"{_HEAD}{name}": each for name, each in model.denoiser.state_dict().items()
    }
    return _shapes(model.autoencoder.state_dict()), _shapes(rest)


def empty_folder(out: Path) -> None:
    """Make the folder of a result; it must be empty, or it could hold graphs of other weights.

    Raises:
        ConfigError: it has files in it, or cannot be written to.
    """
    writable_folder(out, "--out")
    if any(out.iterdir()):
        raise ConfigError(f"--out {out} is not empty: name a new folder")


def import_published(
    autoencoder: Path,
    transformer: Path,
    out: Path,
    config: CamSegConfig,
    ema: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Imported:
    """Write the checkpoint folder `out` from the two published files.

    `ema` takes the running average of the transformer's weights. Matrices and kernels are stored
    in `dtype`; vectors stay fp32.

    Raises:
        ModelError: a file is missing, damaged, of another kind or size; lists every difference.
        ConfigError: `config` does not have the published layout, or `out` is not empty or not
            writable.
    """
    of_autoencoder, of_transformer = published_shapes(config)
    first, second = TorchFile(autoencoder), TorchFile(transformer)
    every = _entry(first, _AUTOENCODER)
    kept = {n: t for n, t in every.items() if not (isinstance(n, str) and n.startswith(_LOSS))}
    parts = [
        (first, _AUTOENCODER, kept, of_autoencoder),
        (second, _TRANSFORMER, _transformer_entry(second, ema), of_transformer),
    ]
    found = [_matching(file, part, entry, shapes) for file, part, entry, shapes in parts]
    differences = [text for _, text in found if text]
    if differences:
        raise ModelDifferences("\n".join(differences))
    empty_folder(out)
    state: dict[str, Tensor] = {}
    for (file, part, _, _), (tensors, _) in zip(parts, found, strict=True):
        for name, tensor in tensors.items():
            state[_own_name(part, name)] = _numbers(file, name, tensor, dtype)
    with torch.device("meta"):
        model = CamSeg(config)
    model.load_state_dict(state, assign=True)
    _save(model, out, dtype)
    parameters = sum(each.numel() for each in state.values())
    return Imported(out, parameters, len(every) - len(kept), _arguments(second))


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _own_name(part: str, name: str) -> str:
    """Return the name that `CamSeg` gives a parameter of a published file."""
    return (
        f"denoiser.{name.removeprefix(_HEAD)}"
        if part == _TRANSFORMER and name.startswith(_HEAD)
        else f"{part}.{name}"
    )


def _save(model: CamSeg, out: Path, dtype: torch.dtype) -> None:
    try:
        model.save_pretrained(out, dtype)
    except (OSError, CamSegError) as error:
        raise ConfigError(f"--out {out} cannot be written to: {error}") from error


def _entry(file: TorchFile, part: str) -> dict[object, object]:
    """Return the weights of a part's file, unchecked."""
    content, name = file.content, _ENTRY[part]
    if not isinstance(content, dict):
        raise ModelError(
            f"{file.path} is not a published {part}: it holds {_described(content)}, "
            f"not a dict with {name!r}"
        )
    other = _TRANSFORMER if part == _AUTOENCODER else _AUTOENCODER
    if name not in content and _ENTRY[other] in content:
        raise ModelError(
            f"{file.path} looks like the {other}'s file, not the {part}'s: "
            "are --autoencoder and --transformer swapped?"
        )
    found = content.get(name)
    if not isinstance(found, dict):
        entries = ", ".join(printable(key) for key in list(content)[:12]) or "nothing"
        what = "missing" if name not in content else _described(found)
        raise ModelError(
            f"{file.path} is not a published {part}: {name!r} is {what}; it has {entries}"
        )
    return found


def _transformer_entry(file: TorchFile, ema: bool) -> dict[object, object]:
    """Return the weights, or their running average: a dict, or a list in the weights' order."""
    weights = _entry(file, _TRANSFORMER)
    if not ema:
        return weights
    assert isinstance(file.content, dict)
    average = file.content.get(_EMA)
    if isinstance(average, dict):
        return average
    if isinstance(average, list | tuple):
        if len(average) != len(weights):
            raise ModelError(
                f"{file.path}: {_EMA!r} lists {len(average)} tensors, "
                f"but 'model' has {len(weights)}: leave --ema out"
            )
        return dict(zip(weights, average, strict=True))
    raise ModelError(
        f"{file.path} has no running average of the weights ({_EMA!r}): leave --ema out"
    )


def _matching(
    file: TorchFile, part: str, entry: dict[object, object], wanted: Shapes
) -> tuple[dict[str, StoredTensor], str]:
    """Return the tensors of a part by name, in the wanted order, and all differences as text."""
    missing = [name for name in wanted if name not in entry]
    unexpected = [printable(name) for name in entry if name not in wanted]
    other: list[tuple[str, str]] = []
    tensors: dict[str, StoredTensor] = {}
    for name, shape in wanted.items():
        if name not in entry:
            continue
        found = entry[name]
        if not isinstance(found, StoredTensor):
            other.append((name, f"{_described(found)}, not a tensor"))
        elif found.shape != shape:
            other.append((name, f"{list(found.shape)} where {list(shape)} is expected"))
        elif (dtype := file.dtype(found)) is None or not dtype.is_floating_point:
            other.append((name, f"numbers of {found.storage.kind}, not floating-point ones"))
        else:
            tensors[name] = found
    if not (missing or unexpected or other):
        return tensors, ""
    hint = ""
    if not (missing or unexpected) and len(other) > len(wanted) // 4:
        hint = (
            ": the file seems to be of a model of another size "
            "(--config config.json gives its sizes)"
        )
    elif not tensors and not other:
        hint = ": the file seems to be of another model"
    lines = [f"{file.path} does not hold the {part} of this configuration{hint}"]
    of_all = f" of {len(wanted)}"
    groups = (
        ("missing", [(n, "") for n in missing], of_all),
        ("unexpected", [(n, "") for n in unexpected], ""),
        ("not as wanted", other, of_all),
    )
    for title, differences, total in groups:
        if differences:
            lines += [f"  {title}: {len(differences)}{total}"]
            lines += [f"    {line}" for line in _grouped(differences)]
    return tensors, "\n".join(lines)


def _grouped(differences: list[tuple[str, str]]) -> list[str]:
    """Join names that differ only in their first number: `blocks.{0,1,2}.norm.weight: …`."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, detail in differences:
        matched = re.fullmatch(r"(?s)(.*?)(?:\.(\d+)(\..*))?", name)
        assert matched is not None  # it matches everything
        before, number, after = matched.groups()
        groups[before, after or "", detail].append(number)
    lines = []
    for (before, after, detail), numbers in groups.items():
        several = f"{{{','.join(numbers)}}}" if len(numbers) > 1 else numbers[0]
        lines.append(
            f"{before}{f'.{several}' if after else ''}{after}" + (f": {detail}" if detail else "")
        )
    return lines


def printable(value: object) -> str:
    """Return text of a file, shortened and with control characters escaped, to show it safely."""
    # decimal digits of a huge number take Python too long, or are refused
    huge = type(value) is int and value.bit_length() > 64
    text = (hex(value) if huge else str(value))[:200]  # type: ignore[arg-type]
    return text if text.isprintable() else repr(text)


def _described(value: object) -> str:
    if isinstance(value, Inert):
        return f"an object of {printable(value.name)}"
    return f"a {type(value).__name__}"


def _numbers(file: TorchFile, name: str, tensor: StoredTensor, dtype: torch.dtype) -> Tensor:
    """Read a tensor in fp32; it must be finite, and stay so in `dtype`."""
    numbers = file.read(tensor, name).float()
    if not numbers.isfinite().all():
        raise ModelError(
            f"{file.path}: {name} has numbers that are NaN or infinite: "
            "the file is damaged or from a run that failed"
        )
    if numbers.ndim > 1 and not numbers.to(dtype).isfinite().all():
        raise ModelError(
            f"{file.path}: {name} has numbers too large for fp16: take --dtype bf16 or fp32"
        )
    return numbers


def _arguments(file: TorchFile) -> dict[str, str]:
    """Return the plain entries of the file's `args`."""
    arguments = file.content.get("args") if isinstance(file.content, dict) else None
    if not isinstance(arguments, argparse.Namespace):
        return {}
    return {
        printable(name): printable(value)
        for name, value in vars(arguments).items()
        if isinstance(value, str | int | float | bool)
    }
