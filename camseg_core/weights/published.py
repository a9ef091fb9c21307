"""The published files of a model as a checkpoint folder: names, shapes and numbers are checked, and nothing in the files is run."""

import argparse
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from camseg_core.config.model import CamSegConfig
from camseg_core.errors import ConfigError, ModelError
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
    """What an import wrote, and what the files say of themselves."""

    folder: Path
    parameters: int
    ignored: int
    """Tensors of the autoencoder's training loss."""
    arguments: dict[str, str] = field(default_factory=dict)
    """The plain entries of the training's command line, as the transformer's file has it, fit to print; nothing relies on them."""


def published_shapes(config: CamSegConfig) -> tuple[Shapes, Shapes]:
    """Names and shapes that the autoencoder's and the transformer's file have for a configuration of the published layout.

    Raises:
        ConfigError: the configuration has another layout.
    """
    if (
        config.autoencoder is None
        or config.transformer.fusion != "sequence"
        or config.light_decoder is not None
    ):
        raise ConfigError(
            f"{config.name} does not have the published layout: that has an autoencoder of pictures, fusion sequence and no light decoder"
        )
    with torch.device("meta"):
        model = CamSeg(config)
    assert model.autoencoder is not None
    rest = dict(model.transformer.state_dict()) | {
        f"{_HEAD}{name}": each for name, each in model.denoiser.state_dict().items()
    }
    return _shapes(model.autoencoder.state_dict()), _shapes(rest)


def empty_folder(out: Path) -> None:
    """Make the folder of a result, before the work for it: other files in it could be graphs of other weights.

    Raises:
        ConfigError: it has files in it, or cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise ConfigError(f"--out {out} is not empty: name a new folder")
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be written to: {error.strerror}") from error


def import_published(
    autoencoder: Path,
    transformer: Path,
    out: Path,
    config: CamSegConfig,
    ema: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Imported:
    """Write the checkpoint folder `out` from the two published files.

    `ema` takes the running average of the transformer's weights. `dtype` is how matrices and kernels are stored; vectors stay fp32.

    Raises:
        ModelError: a file is missing, damaged, not what it should be or of another size; every difference is listed.
        ConfigError: `config` does not have the published layout, or `out` is not empty or cannot be written to.
    """
    of_autoencoder, of_transformer = published_shapes(config)
    first, second = TorchFile(autoencoder), TorchFile(transformer)
    parts = [
        (
            first,
            _AUTOENCODER,
            _without_loss(_entry(first, _AUTOENCODER, _ENTRY[_AUTOENCODER])),
            of_autoencoder,
        ),
        (second, _TRANSFORMER, _transformer_entry(second, ema), of_transformer),
    ]
    found = [_matching(file, part, entry, shapes) for file, part, entry, shapes in parts]
    differences = [text for _, text in found if text]
    if differences:
        raise ModelError("\n".join(differences))
    empty_folder(out)
    state: dict[str, Tensor] = {}
    for (file, part, _, _), (tensors, _) in zip(parts, found, strict=True):
        for name, tensor in tensors.items():
            state[_own_name(part, name)] = _numbers(file, name, tensor, dtype)
    with torch.device("meta"):
        model = CamSeg(config)
    model.load_state_dict(state, assign=True)
    _save(model, out, dtype)
    every = _entry(first, _AUTOENCODER, _ENTRY[_AUTOENCODER])
    return Imported(
        out,
        sum(each.numel() for each in state.values()),
        len(every) - len(parts[0][2]),
        _arguments(second),
    )


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _own_name(part: str, name: str) -> str:
    """The name that `CamSeg` gives a parameter of a published file."""
    return (
        f"denoiser.{name.removeprefix(_HEAD)}"
        if part == _TRANSFORMER and name.startswith(_HEAD)
        else f"{part}.{name}"
    )


def _save(model: CamSeg, out: Path, dtype: torch.dtype) -> None:
    from safetensors import SafetensorError

    try:
        model.save_pretrained(out, dtype)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"--out {out} cannot be written to: {error}") from error


def _entry(file: TorchFile, part: str, name: str) -> dict[object, object]:
    """The weights that a file has under `name`, before they are checked."""
    content = file.content
    if not isinstance(content, dict):
        raise ModelError(
            f"{file.path} is no published {part}: it holds {_described(content)}, not a dict with {name!r}"
        )
    other = _TRANSFORMER if part == _AUTOENCODER else _AUTOENCODER
    if name not in content and _ENTRY[other] in content:
        raise ModelError(
            f"{file.path} looks like the {other}'s file, not the {part}'s: are --autoencoder and --transformer swapped?"
        )
    found = content.get(name)
    if not isinstance(found, dict):
        entries = ", ".join(printable(key) for key in list(content)[:12]) or "nothing"
        raise ModelError(
            f"{file.path} is no published {part}: {name!r} is {'missing' if name not in content else _described(found)}; it has {entries}"
        )
    return found


def _without_loss(entry: dict[object, object]) -> dict[object, object]:
    return {
        name: each
        for name, each in entry.items()
        if not (isinstance(name, str) and name.startswith(_LOSS))
    }


def _transformer_entry(file: TorchFile, ema: bool) -> dict[object, object]:
    """The weights, or their running average: a dict as well, or a list in the order of the weights."""
    weights = _entry(file, _TRANSFORMER, _ENTRY[_TRANSFORMER])
    if not ema:
        return weights
    assert isinstance(file.content, dict)
    average = file.content.get(_EMA)
    if isinstance(average, dict):
        return average
    if isinstance(average, list | tuple):
        if len(average) != len(weights):
            raise ModelError(
                f"{file.path}: {_EMA!r} lists {len(average)} tensors, but 'model' has {len(weights)}: leave --ema out"
            )
        return dict(zip(weights, average, strict=True))
    raise ModelError(
        f"{file.path} has no running average of the weights ({_EMA!r}): leave --ema out"
    )


def _matching(
    file: TorchFile, part: str, entry: dict[object, object], wanted: Shapes
) -> tuple[dict[str, StoredTensor], str]:
    """The tensors of a part by name, in the wanted order; and all differences as text, empty where there are none."""
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
            other.append((name, f"{list(found.shape)} where {list(shape)} is wanted"))
        elif (dtype := file.dtype(found)) is None or not dtype.is_floating_point:
            other.append((name, f"numbers of {found.storage.kind}, not floating-point ones"))
        else:
            tensors[name] = found
    if not (missing or unexpected or other):
        return tensors, ""
    hint = ""
    if not (missing or unexpected) and len(other) > len(wanted) // 4:
        hint = ": the file seems to be of a model of another size (--config config.json gives its sizes)"
    elif not tensors and not other:
        hint = ": the file seems to be of another model"
    lines = [f"{file.path} does not hold the {part} of this configuration{hint}"]
    groups = (
        ("missing", [(n, "") for n in missing]),
        ("unexpected", [(n, "") for n in unexpected]),
        ("not as wanted", other),
    )
    for title, differences in groups:
        if differences:
            lines += [
                f"  {title}: {len(differences)} of {len(wanted)}"
                if title != "unexpected"
                else f"  {title}: {len(differences)}"
            ]
            lines += [f"    {line}" for line in _grouped(differences)]
    return tensors, "\n".join(lines)


def _grouped(differences: list[tuple[str, str]]) -> list[str]:
    """One line for names that differ in their first number alone and in the same way: `blocks.{0,1,2}.norm.weight: …`."""
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, detail in differences:
        before, number, after = re.fullmatch(r"(?s)(.*?)(?:\.(\d+)(\..*))?", name).groups()  # type: ignore[union-attr]  # matches all
        groups[before, after or "", detail].append(number)
    lines = []
    for (before, after, detail), numbers in groups.items():
        several = f"{{{','.join(numbers)}}}" if len(numbers) > 1 else numbers[0]
        lines.append(
            f"{before}{f'.{several}' if after else ''}{after}" + (f": {detail}" if detail else "")
        )
    return lines


def printable(value: object) -> str:
    """Text or a key of a file as it may be shown: control characters could rewrite a terminal, and a number could have a million digits."""
    text = (
        value[:200]
        if isinstance(value, str)
        else hex(value)[:200]
        if type(value) is int and value.bit_length() > 64
        else str(value)[:200]
    )
    return text if text.isprintable() else repr(text)


def _described(value: object) -> str:
    if isinstance(value, Inert):
        return f"an object of {printable(value.name)}"
    return f"a {type(value).__name__}"


def _numbers(file: TorchFile, name: str, tensor: StoredTensor, dtype: torch.dtype) -> Tensor:
    """The tensor in fp32, checked to be finite, and to stay so where it is stored in `dtype`."""
    numbers = file.read(tensor, name).float()
    if not numbers.isfinite().all():
        raise ModelError(
            f"{file.path}: {name} has numbers that are NaN or infinite: the file is damaged or from a run that failed"
        )
    if numbers.ndim > 1 and not numbers.to(dtype).isfinite().all():
        raise ModelError(
            f"{file.path}: {name} has numbers too large for fp16: take --dtype bf16 or fp32"
        )
    return numbers


def _arguments(file: TorchFile) -> dict[str, str]:
    """The plain entries of the file's `args`."""
    arguments = file.content.get("args") if isinstance(file.content, dict) else None
    if not isinstance(arguments, argparse.Namespace):
        return {}
    return {
        printable(name): printable(value)
        for name, value in vars(arguments).items()
        if isinstance(value, str | int | float | bool)
    }
