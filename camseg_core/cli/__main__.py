"""`python -m camseg_core.cli`: the `camseg` command, such as for `torchrun -m`."""

from camseg_core.cli import start

start()
