#!/bin/bash
# Runs its arguments in the workspace. They take this process's place, so that the container's signals reach them.
set -e
source /opt/camseg/setup.bash
exec "$@"
