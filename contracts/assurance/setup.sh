#!/usr/bin/env bash
# Makes contracts/.venv with the analyser and the prover, once per list of versions, and prints its path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! cmp -s assurance/requirements.txt .venv/.installed.txt; then
  python3 -m venv --clear .venv >&2
  .venv/bin/pip install --quiet --disable-pip-version-check --requirement assurance/requirements.txt >&2
  cp assurance/requirements.txt .venv/.installed.txt
fi
echo "$PWD/.venv"
