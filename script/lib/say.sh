# Sourced by the other scripts: how they talk. Everything goes to stderr, since stdout is data.

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE: one line that says what to do, and the end.
die() {
  printf 'rialto: %s\n' "$*" >&2
  exit 1
}

now_ms() {
  # %3N is GNU; elsewhere seconds will do.
  local stamp
  stamp=$(date +%s%3N)
  case "$stamp" in *[!0-9]*) stamp=$(($(date +%s) * 1000)) ;; esac
  printf '%s' "$stamp"
}

# human_seconds MILLISECONDS
human_seconds() {
  local seconds=$(($1 / 1000))
  if [ "$seconds" -ge 60 ]; then
    printf '%dm %02ds' $((seconds / 60)) $((seconds % 60))
  else
    printf '%d.%ds' "$seconds" $(($1 % 1000 / 100))
  fi
}
