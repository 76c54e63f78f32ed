#!/usr/bin/env bash
# Compiles the contracts and writes artifacts/. With --check it writes nothing and fails when they are stale.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./install.sh
node_modules/.bin/forge build src
node artifacts.js "$@"
