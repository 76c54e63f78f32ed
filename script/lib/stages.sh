# Sourced: stages that are timed, and a table of them at the end. Needs say.sh.

stage_names=()
stage_results=()
stage_times=()
stage_wanted=()
stages_began=$(now_ms)

# stage NAME TITLE COMMAND...: runs the command in a shell of its own and notes how it went. A failed stage does not end
# the run, so that one run tells everything; a stage that needs another one asks with `passed NAME`.
stage() {
  local name=$1 title=$2 start status=0
  shift 2
  stage_is_wanted "$name" || return 0
  stage_begin "$name" "$title"
  start=$(now_ms)
  # Not in an `if`, which would switch `set -e` off inside.
  set +e
  (set -euo pipefail && "$@")
  status=$?
  set -e
  stage_end "$name" "$status" $(($(now_ms) - start))
}

stage_is_wanted() {
  [ "${#stage_wanted[@]}" = 0 ] || [[ " ${stage_wanted[*]} " == *" $1 "* ]]
}

# beside NAME COMMAND...: begins a stage that runs while others do; `join NAME TITLE` waits for it and shows what it said.
beside() {
  local name=$1
  shift
  stage_is_wanted "$name" || return 0
  mkdir -p target/test
  (
    start=$(now_ms)
    set +e
    (set -euo pipefail && "$@")
    echo "$? $(($(now_ms) - start))" >"target/test/$name.end"
  ) >"target/test/$name.log" 2>&1 &
  echo $! >"target/test/$name.pid"
}

join() {
  local name=$1 title=$2 status time
  stage_is_wanted "$name" || return 0
  wait "$(cat "target/test/$name.pid")"
  read -r status time <"target/test/$name.end"
  stage_begin "$name" "$title"
  cat "target/test/$name.log"
  stage_end "$name" "$status" "$time"
}

stage_begin() {
  printf '\n==> %s: %s\n' "$1" "$2"
}

stage_end() {
  local result=ok
  case $2 in 0) ;; 77) result=skipped ;; *) result=FAILED ;; esac
  stage_names+=("$1")
  stage_results+=("$result")
  stage_times+=("$3")
  printf '<== %s: %s, %s\n' "$1" "$result" "$(human_seconds "$3")"
}

# skip REASON: ends a stage that cannot be run here and is not asked of everyone.
skip() {
  printf 'skipped: %s\n' "$1"
  exit 77
}

# passed NAME: true unless that stage ran and failed.
passed() {
  local index
  for index in "${!stage_names[@]}"; do
    if [ "${stage_names[$index]}" = "$1" ] && [ "${stage_results[$index]}" != ok ]; then
      return 1
    fi
  done
}

# The table, and whether everything went well.
stage_summary() {
  local index failed=0 ok=0 skipped=0
  printf '\n%-12s %-8s %10s\n' stage result time
  for index in "${!stage_names[@]}"; do
    printf '%-12s %-8s %10s\n' "${stage_names[$index]}" "${stage_results[$index]}" "$(human_seconds "${stage_times[$index]}")"
    case "${stage_results[$index]}" in
      ok) ok=$((ok + 1)) ;;
      skipped) skipped=$((skipped + 1)) ;;
      *) failed=$((failed + 1)) ;;
    esac
  done
  printf '%-12s %-8s %10s\n' all '' "$(human_seconds $(($(now_ms) - stages_began)))"
  printf '\nstages: %d passed, %d failed, %d skipped\n' "$ok" "$failed" "$skipped"
  [ "$failed" = 0 ] && [ "$ok" -gt 0 ]
}
