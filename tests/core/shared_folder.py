"""Report whether processes see one folder; `torchrun` starts this once per process.

Arguments: a folder for all, or one for each process.
"""

import os
import sys
from pathlib import Path

from camseg_core.errors import ConfigError
from camseg_core.training.distributed import init_processes

if __name__ == "__main__":
    folders = sys.argv[1:]
    with init_processes() as processes:
        try:
            processes.check_shared(Path(folders[processes.rank % len(folders)]), patience_s=0.5)
            sys.stderr.write(f"rank {os.environ['RANK']}: one folder\n")
        except ConfigError as error:
            sys.stderr.write(f"rank {os.environ['RANK']}: {error}\n")
