#!/usr/bin/env bash
# Compiles the contracts and writes artifacts/. With --check it writes nothing and fails when they are stale.
# Needs only Node and npm; nothing is downloaded outside the npm registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Installs once per lock file: a second run works without a network.
if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.installed-lock.json
fi

node_modules/.bin/forge build --skip test
node artifacts.js "$@"
