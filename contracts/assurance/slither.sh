#!/usr/bin/env bash
# Static analysis of src/. Fails on a finding of high or medium impact that accepted.json does not explain, and on an
# explanation that has lost its finding. With --all it prints everything slither says, and judges nothing.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
contracts="$(dirname "$here")"
venv="$("$here/setup.sh")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# A copy, because the analyser builds anew each time. The optimiser changes nothing of what it reads.
cp -r "$contracts/src" "$contracts/foundry.toml" "$contracts/solc.js" "$work/"
ln -s "$contracts/node_modules" "$work/node_modules"
cd "$work"
export PATH="$venv/bin:$contracts/node_modules/.bin:$PATH" FOUNDRY_OPTIMIZER=false
if [ "${1:-}" = --all ]; then
  exec slither . --filter-paths node_modules
fi
slither . --filter-paths node_modules --exclude-low --exclude-informational --exclude-optimization \
  --fail-none --json "$work/found.json" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
python3 "$here/judge.py" "$work/found.json" "$here/accepted.json"
