#!/bin/bash
# Runs its arguments in the workspace; exec, so that they receive the container's signals.
set -e
source /opt/camseg/setup.bash
exec "$@"
