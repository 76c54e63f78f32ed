# Sourced: puts ONNX Runtime's shared object, and its licences, at target/onnxruntime/ and exports ORT_DYLIB_PATH.
#
# The library comes out of the `onnxruntime` wheel, so that nobody needs to install a Python package to serve a model.
# pip checks the wheel against the hashes in onnxruntime.txt. Needs say.sh, and the current directory at the top.

onnxruntime_ready() {
  # For tests that load it in a process of their own: the library reports to its makers unless it finds this.
  export ORT_DISABLE_TELEMETRY=1
  if [ -n "${ORT_DYLIB_PATH:-}" ]; then
    [ -f "$ORT_DYLIB_PATH" ] || die "ORT_DYLIB_PATH names $ORT_DYLIB_PATH, which does not exist: correct it or unset it"
    return
  fi
  local folder library wanted
  folder=$PWD/target/onnxruntime
  case "$(uname -s)" in Darwin) library=$folder/libonnxruntime.dylib ;; *) library=$folder/libonnxruntime.so ;; esac
  wanted=$(sed -n 's/^onnxruntime==\([^ ]*\).*/\1/p' script/lib/onnxruntime.txt)
  if [ ! -f "$library" ] || [ ! -f "$folder/licences" ] || [ "$(cat "$folder/version" 2>/dev/null)" != "$wanted" ]; then
    onnxruntime_fetch "$folder" "$library" "$wanted"
  fi
  export ORT_DYLIB_PATH=$library
}

# The wheel for CPython 3.12 is taken whatever Python runs here: only the library inside is used.
onnxruntime_platform() {
  case "$(uname -s) $(uname -m)" in
    'Linux x86_64') echo manylinux_2_28_x86_64 ;;
    'Linux aarch64') echo manylinux_2_28_aarch64 ;;
    'Darwin arm64') echo macosx_14_0_arm64 ;;
    *) return 1 ;;
  esac
}

onnxruntime_fetch() {
  local folder=$1 library=$2 wanted=$3 platform work
  platform=$(onnxruntime_platform) ||
    die "there is no ONNX Runtime $wanted wheel for $(uname -sm): build libonnxruntime and set ORT_DYLIB_PATH to it"
  say "fetching ONNX Runtime $wanted for $platform from PyPI"
  mkdir -p "$folder"
  work=$(mktemp -d "$folder/fetch.XXXXXX")
  if ! { python3 -m venv "$work/venv" && "$work/venv/bin/python" -m pip download --quiet --disable-pip-version-check \
    --require-hashes --no-deps --only-binary=:all: --implementation cp --python-version 3.12 --abi cp312 \
    --platform "$platform" --dest "$work/wheel" --requirement script/lib/onnxruntime.txt; } >"$work/log" 2>&1; then
    tail -n 5 "$work/log" >&2
    rm -rf "$work"
    die "ONNX Runtime could not be fetched: put libonnxruntime $wanted anywhere and set ORT_DYLIB_PATH to it"
  fi
  python3 - "$work"/wheel/*.whl "$work/library" "$work/licences" <<'PYTHON'
import shutil, sys, zipfile
wheel, target, licences = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    names = [name for name in archive.namelist() if name.startswith("onnxruntime/capi/libonnxruntime.")]
    if len(names) != 1:
        sys.exit(f"the wheel holds {names}, not one libonnxruntime")
    with archive.open(names[0]) as source, open(target, "wb") as out:
        shutil.copyfileobj(source, out)
    with open(licences, "wb") as out:
        for name in ("LICENSE", "ThirdPartyNotices.txt"):
            out.write(archive.read(f"onnxruntime/{name}") + b"\n")
PYTHON
  # Renamed last, so that a fetch cut short leaves nothing that looks whole.
  mv -f "$work/licences" "$folder/licences"
  mv -f "$work/library" "$library"
  echo "$wanted" >"$folder/version"
  rm -rf "$work"
}
