"""`camseg` with trainings that copy a folder's graphs, as exporting their own takes long.

Arguments: the checkpoint folder to copy from, then those of `camseg`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from camseg_core.cli.main import main
from camseg_core.model.camseg import CamSeg
from camseg_core.runtime.origin import weights_of, write_origin
from camseg_core.training import finish

EXPORT = "camseg_core.training.finish._export"


def borrowed(folder: Path) -> Callable[..., None]:
    """Return a stand-in for the export of a model of the same layout as the one in `folder`."""

    graphs = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.onnx")}

    def export(model: CamSeg, out: Path, *_: object) -> None:
        for path, content in graphs.items():
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_bytes(content)
            write_origin((out / path).parent, weights_of(out), [label.id for label in model.labels])

    return export


if __name__ == "__main__":
    with mock.patch.object(finish, "_export", borrowed(Path(sys.argv[1]))):
        main(sys.argv[2:])
