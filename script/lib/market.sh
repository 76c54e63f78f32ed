# Sourced: a whole market in the background for the length of a stage. Needs say.sh.

market_pid=
market_output=
# Any free port, so that a market that the user runs is left alone.
market_anywhere=(--listen 127.0.0.1:0 --chain-listen 127.0.0.1:0)

# market_start DATA_DIR: starts `script/up`, waits until it serves, and exports OPENAI_BASE_URL, OPENAI_API_KEY and
# RIALTO_RPC_URL. The caller ends it with market_stop, also when the stage fails: trap market_stop EXIT.
market_start() {
  mkdir -p "$1"
  market_output=$1/up.jsonl
  script/up --json --data-dir "$1" "${market_anywhere[@]}" >"$market_output" 2>"$1/up.log" &
  market_pid=$!
  # As long as it lives it is on its way; a market that cannot start ends by itself with a line that says why.
  until market_field base_url >/dev/null; do
    if ! kill -0 "$market_pid" 2>/dev/null; then
      market_pid=
      tail -n 30 "$1/up.log" >&2
      die "the market ended before it served; its log is $1/up.log"
    fi
    sleep 0.2
  done
  OPENAI_BASE_URL=$(market_field base_url)
  OPENAI_API_KEY=$(market_field api_key)
  RIALTO_RPC_URL=$(market_field rpc_url)
  export OPENAI_BASE_URL OPENAI_API_KEY RIALTO_RPC_URL
}

# market_field NAME: what `rialto up --json` said of itself when it began to serve.
market_field() {
  jq -er --arg name "$1" 'select(has("base_url")) | .[$name]' "$market_output" 2>/dev/null | head -n 1 | grep .
}

# Stops it as Ctrl-C does and fails when it does not end well.
market_stop() {
  [ -n "$market_pid" ] || return 0
  local pid=$market_pid tries=0
  market_pid=
  kill -INT "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do
    tries=$((tries + 1))
    if [ "$tries" -gt 900 ]; then
      kill -KILL "$pid" 2>/dev/null || true
      die "the market did not end within three minutes of Ctrl-C; its log is ${market_output%/*}/up.log"
    fi
    sleep 0.2
  done
  wait "$pid" || die "the market ended with $? when it was asked to stop; its log is ${market_output%/*}/up.log"
}
