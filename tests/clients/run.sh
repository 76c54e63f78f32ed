#!/usr/bin/env bash
# tests/clients/run.sh BASE_URL API_KEY: runs the stories of every client against a running gateway, such as
# `tests/clients/run.sh http://127.0.0.1:8080/v1 sk-…`. The clients come from PyPI and npm, into target/clients/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# = 2 ] || { echo "usage: tests/clients/run.sh BASE_URL API_KEY" >&2 && exit 2; }
export OPENAI_BASE_URL=$1 OPENAI_API_KEY=$2
# A proxy has no part in a market on this machine.
export NO_PROXY=127.0.0.1,localhost,::1 no_proxy=127.0.0.1,localhost,::1

clients=target/clients

install_python() {
  local wanted=tests/clients/python/requirements.txt
  cmp -s "$wanted" "$clients/python/installed.txt" && return
  rm -rf "$clients/python"
  python3 -m venv "$clients/python"
  "$clients/python/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --requirement "$wanted"
  cp "$wanted" "$clients/python/installed.txt"
}

install_javascript() {
  local wanted=tests/clients/javascript/package-lock.json
  if ! cmp -s "$wanted" "$clients/javascript/installed.json"; then
    mkdir -p "$clients/javascript"
    cp tests/clients/javascript/package.json "$wanted" "$clients/javascript/"
    npm ci --prefix "$clients/javascript" --silent --ignore-scripts --no-audit --no-fund
    cp "$wanted" "$clients/javascript/installed.json"
  fi
  # Node looks for packages beside the script, so the stories run from where their client is.
  cp tests/clients/javascript/*.mjs "$clients/javascript/"
}

install_python
install_javascript

passed=0
failed=0
run() {
  local said
  said=$(mktemp)
  # A client that dies before its last line is a failure of its own.
  "$@" 2>&1 | tee "$said" || true
  local counts
  counts=$(sed -n 's/^[a-z]*: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$said" | tail -n 1)
  rm -f "$said"
  read -r good bad <<<"${counts:-0 1}"
  passed=$((passed + good))
  failed=$((failed + bad))
}

run "$clients/python/bin/python" tests/clients/python/stories.py
run node "$clients/javascript/stories.mjs"
run tests/clients/http/infer.sh
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
