#!/usr/bin/env bash
# tests/clients/run.sh BASE_URL API_KEY [DATA_DIR]: runs the stories of every client against a running gateway, such as
# `tests/clients/run.sh http://127.0.0.1:8080/v1 sk-…`. With the data directory of its market also those that look at the
# money, and at sellers that die. The clients come from PyPI and npm, into target/clients/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ $# = 2 ] || [ $# = 3 ] || { echo "usage: tests/clients/run.sh BASE_URL API_KEY [DATA_DIR]" >&2 && exit 2; }
export OPENAI_BASE_URL=$1 OPENAI_API_KEY=$2
# A proxy has no part in a market on this machine.
export NO_PROXY=127.0.0.1,localhost,::1 no_proxy=127.0.0.1,localhost,::1

clients=target/clients

# install_python NAME: what tests/clients/python/NAME.txt lists, which is all that is needed, into an environment of its own.
install_python() {
  local wanted=tests/clients/python/$1.txt folder=$clients/$1
  cmp -s "$wanted" "$folder/installed.txt" && return
  rm -rf "$folder"
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: --no-deps --requirement "$wanted"
  cp "$wanted" "$folder/installed.txt"
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

install_python python
install_python libraries
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
run "$clients/libraries/bin/python" tests/clients/python/langchain_stories.py
run "$clients/libraries/bin/python" tests/clients/python/litellm_stories.py
if python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))'; then
  install_python openwebui
  run "$clients/openwebui/bin/python" tests/clients/python/openwebui_stories.py
else
  echo "skipped openwebui: Open WebUI is made for Python 3.11 and 3.12"
fi
run node "$clients/javascript/stories.mjs"
run tests/clients/http/infer.sh
if [ $# = 3 ]; then
  export RIALTO_DATA_DIR=$3
  RIALTO_RETRYING_JS=$clients/javascript/retrying.mjs run "$clients/python/bin/python" tests/clients/python/retries_stories.py
  # Last, since its sellers are known for a while after they are gone.
  run "$clients/python/bin/python" tests/clients/python/failover_stories.py
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
