#!/usr/bin/env bash
# benches/python/routers/install.sh: puts the routers that `router` compares with into target/bench/routers, each set of
# requirements in an environment of its own. One that does not install is left out, and the bench says so.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.." || exit 1

folder=$PWD/target/bench/routers
mkdir -p "$folder"
for name in rust litellm; do
  wanted=benches/python/routers/$name.txt
  cmp -s "$wanted" "$folder/$name/installed.txt" && continue
  rm -rf "${folder:?}/$name"
  if python3 -m venv "$folder/$name" &&
    "$folder/$name/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$wanted"; then
    cp "$wanted" "$folder/$name/installed.txt"
  else
    echo "$name.txt does not install here" >&2
    rm -rf "${folder:?}/$name"
  fi
done
