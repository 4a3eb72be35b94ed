#!/usr/bin/env bash
# Environment and all tests: bash tools/run_tests.sh [--all] [pytest arguments]; --all also smokes every config with every argument
# and amalgamates on several devices.
# The real-data tests run on the images in the folder that AMALGAM_DATA names; without it they are skipped with that message.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/environment.sh requirements-dev.txt
export PYTHONPATH=. TF_CPP_MIN_LOG_LEVEL=2 MPLBACKEND=Agg
if [ "${1:-}" = --all ]; then export AMALGAM_SMOKE_ALL=1; shift; set -- -m "whole or not whole" "$@"; fi
if [ -n "${AMALGAM_DATA:-}" ]; then AMALGAM_DATA=$(cd "$AMALGAM_DATA" && pwd); export AMALGAM_DATA; fi
ruff check .
ruff format --check .
exec python -m pytest -n 2 --dist worksteal --durations=10 "$@"
