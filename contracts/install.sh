#!/usr/bin/env bash
# Installs the toolchain that package-lock.json pins. Needs only Node and npm; nothing is downloaded outside the npm registry.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Once per lock file: a second run works without a network.
if ! cmp -s package-lock.json node_modules/.installed-lock.json; then
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.installed-lock.json
fi

# The programs themselves in the place of their launchers, which report success whatever the program reports.
for program in forge cast anvil; do
  found=(node_modules/@foundry-rs/"$program"-*/bin/"$program")
  if [ ! -x "${found[0]}" ]; then
    echo "npm has installed no $program for this machine" >&2
    exit 1
  fi
  [ "node_modules/.bin/$program" -ef "${found[0]}" ] || ln -sf "../${found[0]#node_modules/}" "node_modules/.bin/$program"
done
