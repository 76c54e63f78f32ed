#!/usr/bin/env bash
# Trades through NATs, with the real program: tests/nat/run.sh [RIALTO]. Needs root, `ip` and nftables; exits with 3 and
# says why where network namespaces or NAT are not to be had. RELAY_AWAY is for how many seconds the relay stays away.
#
# Network namespaces: an internet, which holds the relay and the development chain and leads nowhere else, and homes. Each
# home is a router with one public address, a NAT and no open port, and one or two machines behind it; NATs called `hard`
# give each connection a port at random. One seller lives in the home of a buyer. One buyer has a public address and no
# NAT. Each buyer buys from each seller; then while the relay is killed; then once it is back. A buyer that comes when the
# ticket's meeting place is gone finds a seller by the chain's registry alone. Nothing may be sent to an address that is not
# a part of this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. script/lib/say.sh
. tests/nat/internet.sh
rialto=$(realpath "${1:-target/release/rialto}")
folder=$PWD/target/test/nat
relay_url=http://10.99.0.1:3340
buyers=(buyer-easy buyer-hard buyer-public)
sellers=(seller-easy seller-hard seller-beside)
pids=()
asked=()

# Ends what this script started, by its pids, and takes the namespaces away.
clean() {
  local pid
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  internet_end
}

# start NS NAME COMMAND...: runs `rialto COMMAND --json` there and waits until it is ready.
start() {
  local ns=$1 name=$2
  shift 2
  mkdir -p "$folder/$name"
  # Not in a function: the process itself has to be what is killed.
  ip netns exec "$prefix-$ns" env -u RIALTO_TICKET "$rialto" "$@" --json --data-dir "$folder/$name" \
    >"$folder/$name.out" 2>>"$folder/$name.log" </dev/null &
  started=$!
  pids+=("$started")
  until grep -qs '"ready"' "$folder/$name.out"; do
    kill -0 "$started" 2>/dev/null || { tail -n 20 "$folder/$name.log" >&2; die "the $name ended before it was ready"; }
    sleep 0.05
  done
}

# join NS BUYER: a gateway, and a key for it.
join() {
  start "$1" "$2" gateway --ticket "$ticket" --relay "$relay_url" --listen 127.0.0.1:0
  "$rialto" key create test --json --data-dir "$folder/$2" | jq -er .key >"$folder/$2.key"
}

now_ms() { date +%s%3N; }

# ask BUYER SELLER SECONDS [NS]: one question; fails when there is no answer in time.
ask() {
  local url key seller
  url=$(jq -er .base_url "$folder/$1.out")
  seller=$(jq -er .provider "$folder/$2.out")
  key=$(<"$folder/$1.key")
  in_ns "${4:-$1}" curl --fail --silent --max-time "$3" "$url/chat/completions" \
    -H "Authorization: Bearer $key" -H 'Content-Type: application/json' \
    -d '{"model":"rialto/shakespeare:q8_0","messages":[{"role":"user","content":"What is love?"}],"max_tokens":8,
      "provider":{"only":["'"$seller"'"]}}' |
    jq -e '.usage.completion_tokens > 0' >/dev/null
}

# Milliseconds after which something has gone wrong, however slow this machine is.
patience=180000

# ask_until BUYER SELLER: asks again and again; prints the milliseconds until there was an answer.
ask_until() {
  local begun
  begun=$(now_ms)
  until ask "$1" "$2" 10; do
    [ $(($(now_ms) - begun)) -lt $patience ] || die "$1 got no answer from $2 within three minutes"
    sleep 0.1
  done
  echo $(($(now_ms) - begun))
}

# ask_all ENDING: every buyer asks every seller until there is an answer, all at once, so that none waits for another. What
# each of them took is in a file of this ending.
ask_all() {
  local buyer seller pid asking=()
  for buyer in "${buyers[@]}"; do
    for seller in "${sellers[@]}"; do
      ask_until "$buyer" "$seller" >"$folder/$buyer.$seller.$1" &
      asking+=($!)
    done
  done
  for pid in "${asking[@]}"; do wait "$pid" || die "a pair did not come together"; done
}

internet_possible
trap clean EXIT
rm -rf "$folder"
mkdir -p "$folder"
begun=$(now_ms)
internet
home meeting 1
home buyer-easy 2 && guest seller-beside 2 buyer-easy
home buyer-hard 3
home seller-easy 4
home seller-hard 5
public buyer-public 6

start internet relay relay --listen 10.99.0.1:3340
relay=$started

# The market is founded where its chain is; the same data directory is its meeting place from then on, at home.
in_ns internet "$rialto" up --once --data-dir "$folder/meeting" --json --chain-listen 10.99.0.1:8545 --listen 127.0.0.1:0 \
  --relay "$relay_url" >"$folder/up.out" 2>"$folder/up.log" </dev/null || { tail "$folder/up.log" >&2; die "no market"; }
mkdir -p "$folder/chain"
mv "$folder/meeting/chain" "$folder/chain/"
start internet chain chain --listen 10.99.0.1:8545
rm -f "$folder/meeting/gateway/node-listen"
start meeting meeting gateway --listen 127.0.0.1:0 --relay "$relay_url"
meeting=$started
ticket=$("$rialto" ticket --data-dir "$folder/meeting")
publisher=$(jq -er .publisher "$folder/meeting/market.json")

for seller in "${sellers[@]}"; do
  start "$seller" "$seller" provide --ticket "$ticket" --relay "$relay_url" --publisher "$publisher" --no-bench \
    --model models/shakespeare/manifest-q8_0.toml
done
for buyer in "${buyers[@]}"; do join "$buyer" "$buyer"; done
echo "a market of $((${#buyers[@]} + ${#sellers[@]} + 1)) nodes behind NATs after $(($(now_ms) - begun)) ms"

for buyer in "${buyers[@]}"; do
  for seller in "${sellers[@]}"; do
    echo "$buyer buys from $seller: answered after $(ask_until "$buyer" "$seller") ms"
  done
done

# What so many answers take here while nothing is amiss: this machine may have other things to do.
ask_all usual
usual=$(sort -n "$folder"/*.usual | tail -n 1)
echo "all buyers buy from all sellers at once: $usual ms"

kill -KILL "$relay"
wait "$relay" 2>/dev/null || true
gone=$(now_ms)
# All at once, in less time than an address is dialled for: a seller that cannot be reached would be left alone for a while.
for buyer in "${buyers[@]}"; do
  for seller in "${sellers[@]}"; do
    { ask "$buyer" "$seller" 4 && touch "$folder/$buyer.$seller.direct"; } &
    asked+=($!)
  done
done
for pid in "${asked[@]}"; do wait "$pid" || true; done
direct=0
for buyer in "${buyers[@]}"; do
  for seller in "${sellers[@]}"; do
    if [ -e "$folder/$buyer.$seller.direct" ]; then
      echo "without the relay, $buyer buys from $seller: their connection is direct"
      direct=$((direct + 1))
    fi
  done
done
[ "$direct" -gt 0 ] || die "no connection was direct: a buyer with a public address, or one beside the seller, needs no relay"
while [ $(($(now_ms) - gone)) -lt $((${RELAY_AWAY:-8} * 1000)) ]; do sleep 0.1; done

start internet relay relay --listen 10.99.0.1:3340
ask_all again
soon=$((5000 + 4 * usual))
late=0
for buyer in "${buyers[@]}"; do
  for seller in "${sellers[@]}"; do
    took=$(<"$folder/$buyer.$seller.again")
    echo "$buyer buys from $seller again: $took ms after the relay was back"
    [ "$took" -le $soon ] || late=$((late + 1))
  done
done
[ $late = 0 ] || die "$late pairs were not in touch 5 seconds after the relay was back, and 4 times what is usual here: $soon ms"

kill -KILL "$meeting"
wait "$meeting" 2>/dev/null || true
begun=$(now_ms)
join buyer-hard buyer-late
until ask buyer-late seller-easy 10 buyer-hard; do
  [ $(($(now_ms) - begun)) -lt $patience ] || die "without a meeting place a new buyer found nobody within three minutes"
  sleep 0.1
done
echo "a buyer that joins without a meeting place buys: $(($(now_ms) - begun)) ms after its start"

count=$("$rialto" receipts --json --data-dir "$folder/buyer-hard" | jq length)
[ "$count" -ge 6 ] || die "a buyer has $count receipts of at least 6 trades"
# That it counts is tried first: a packet to the outside that was sent on purpose.
packets=$(outside)
in_ns buyer-hard bash -c 'echo >/dev/udp/192.0.2.1/9'
[ "$(outside)" = $((packets + 1)) ] || die "packets to the outside are not counted"
echo "packets to addresses outside: $packets"
[ "$packets" = 0 ] || die "something outside was contacted"
