#!/usr/bin/env bash
# A whole life of two channels by `cast` alone, with every balance checked on the way: nothing of the market's own
# programs is needed to be paid, or to get one's money back. It starts an anvil of its own, or uses the development chain
# at RPC_URL. The accounts are those that every development chain unlocks; the session key is made for this run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# foundry NAME: the program itself; the launcher that npm puts before it costs more than most calls.
foundry() {
  local file
  for file in node_modules/@foundry-rs/"$1"-*/bin/"$1" "node_modules/.bin/$1"; do
    if [ -x "$file" ]; then
      echo "$PWD/$file"
      return
    fi
  done
  command -v "$1"
}
cast=$(foundry cast)

scratch=$(mktemp -d)
node_pid=
finish() {
  if [ -n "$node_pid" ]; then
    kill "$node_pid" 2>/dev/null || true
  fi
  rm -rf "$scratch"
}
trap finish EXIT

start_anvil() {
  "$(foundry anvil)" --port 0 >"$scratch/anvil" 2>&1 &
  node_pid=$!
  # As long as it lives it is on its way.
  until grep -q 'Listening on' "$scratch/anvil"; do
    if ! kill -0 "$node_pid" 2>/dev/null; then
      cat "$scratch/anvil"
      echo "anvil does not start" >&2
      exit 1
    fi
    sleep 0.1
  done
  RPC_URL=http://$(sed -n 's/.*Listening on //p' "$scratch/anvil" | head -n 1)
}
[ -n "${RPC_URL:-}" ] || start_anvil
export ETH_RPC_URL=$RPC_URL

deployer=0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266
payer=0x70997970C51812dc3A010C7d01b50e0d17dc79C8
provider=0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC
publisher=0x90F79bf6EB2c4f870365E785982E1f101E93b906
treasury=0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65
nobody=0x0000000000000000000000000000000000000000

# send FROM ARGUMENTS...: a transaction that must succeed; leaves its hash in `sent`.
send() {
  local from=$1
  shift
  sent=$("$cast" send --async --unlocked --from "$from" "$@")
  case $("$cast" receipt "$sent" status) in
    true | 1*) ;;
    *) echo "reverted: $*" >&2 && exit 1 ;;
  esac
}

# create NAME [ARGUMENTS]: deploys an artifact; leaves its address in `created`.
create() {
  local code
  code=$(node -p "require('./artifacts/$1.json').bytecode")
  send "$deployer" --create "$code${2:-}"
  created=$("$cast" receipt "$sent" contractAddress)
}

# get TO SIGNATURE ARGUMENTS...: the numbers that a call returns, on one line, without cast's explanations.
get() { "$cast" call "$@" | sed 's/ \[.*//' | paste -sd ' '; }

# is WHAT GOT EXPECTED
is() {
  if [ "$2" != "$3" ]; then
    echo "$1: $2, and not $3" >&2
    exit 1
  fi
  echo "ok  $1: $2"
}

# refused WHAT ERROR TO SIGNATURE ARGUMENTS...: a call that the contract must refuse, with this error.
refused() {
  local what=$1 selector
  selector=$("$cast" sig "$2")
  shift 2
  if "$cast" call "$@" >"$scratch/refused" 2>&1; then
    echo "$what: not refused" >&2
    exit 1
  fi
  if ! grep -q "${selector#0x}" "$scratch/refused"; then
    echo "$what: refused for another reason" >&2
    cat "$scratch/refused" >&2
    exit 1
  fi
  echo "ok  $what: refused"
}

tokens() { get "$token" 'balanceOf(address)(uint256)' "$1"; }
free() { get "$escrow" 'balanceOf(address)(uint256)' "$payer"; }
slot() { get "$escrow" 'channel(bytes32)(uint96,uint96,uint40,uint24)' "$1"; }

# claim ID SALT CUMULATIVE AMOUNT: a voucher of the session key, packed as a claim of 172 bytes, in `claim`.
claim() {
  local head digest signature s v
  head=$("$cast" keccak "receipts up to $3")
  digest=$("$cast" call "$escrow" 'voucherHash(bytes32,uint96,bytes32)(bytes32)' "$1" "$3" "$head")
  signature=$("$cast" wallet sign --no-hash --private-key "$session_key" "$digest")
  signature=${signature#0x}
  s=${signature:64:64}
  v=${signature:128:2}
  if [ "$v" = 1c ]; then
    # EIP-2098: the parity is the top bit of s, which is never set otherwise.
    s=$(printf '%x' $((0x${s:0:1} | 8)))${s:1}
  fi
  claim=${payer#0x}${session#0x}$(printf '%024x%024x%024x' "$2" "$3" "$4")${head#0x}${signature:0:64}$s
  is "bytes of a claim" $((${#claim} / 2)) 172
}

# redeem CLAIMS: the provider redeems; first asks what it will be paid.
redeem() {
  paid=$(get --from "$provider" "$escrow" 'redeem((bytes32,bytes)[])(uint256)' "[($model,0x$1)]")
  [ "$paid" = 0 ] || send "$provider" "$escrow" 'redeem((bytes32,bytes)[])' "[($model,0x$1)]"
}

echo "--- contracts on $RPC_URL"
create TestDollar && token=$created
create Models && models=$created
arguments=$("$cast" abi-encode 'f(address,address,address,address,uint16,uint40)' "$token" "$models" "$nobody" "$treasury" 100 86400)
create Escrow "${arguments#0x}" && escrow=$created
manifest=$("$cast" keccak "a manifest")
send "$publisher" "$models" 'register(bytes32,string,string,uint16)' "$manifest" Q8_0 MIT 500
model=$("$cast" call "$models" 'modelIdOf(address,bytes32)(bytes32)' "$publisher" "$manifest")

echo "--- a deposit, and two channels"
"$cast" wallet new >"$scratch/session"
session=$(sed -n 's/^Address: *//p' "$scratch/session")
session_key=$(sed -n 's/^Private key: *//p' "$scratch/session")
send "$payer" "$token" 'mint(address,uint256)' "$payer" 100000000
send "$payer" "$token" 'approve(address,uint256)' "$escrow" 15000000
send "$payer" "$escrow" 'deposit(uint96)' 10000000
is "free balance after the deposit" "$(free)" 10000000
own=(--from "$payer" "$escrow")
parts='address,address,bytes32,uint96'
send "$payer" "$escrow" "open($parts,uint96)" "$session" "$provider" "$model" 1 4000000
send "$payer" "$escrow" "depositAndOpen($parts,uint96)" "$session" "$provider" "$model" 2 5000000
send "$payer" "$escrow" "topUp($parts,uint96)" "$session" "$provider" "$model" 2 1000000
first=$("$cast" keccak "$("$cast" abi-encode 'f(address,address,address,bytes32,address,uint96)' "$payer" "$session" "$provider" "$model" "$token" 1)")
second=$("$cast" call "$escrow" 'channelIdOf(address,address,address,bytes32,uint96)(bytes32)' "$payer" "$session" "$provider" "$model" 2)
is "the first channel" "$(slot "$first")" "4000000 0 0 1"
is "the second channel" "$(slot "$second")" "6000000 0 0 1"
is "free balance after opening" "$(free)" 5000000
is "the payer's account" "$(tokens "$payer")" 85000000
refused "opening it again" 'ChannelExists(bytes32)' "${own[@]}" "open($parts,uint96)" "$session" "$provider" "$model" 1 1

echo "--- vouchers"
claim "$first" 1 1500000 1500000
claims=$claim
claim "$second" 2 2500000 2000000
claims+=$claim
redeem "$claims"
is "paid for two channels" "$paid" 3500000
is "the provider's account" "$(tokens "$provider")" 3290000
is "the publisher's royalty" "$(get "$escrow" 'creditOf(address)(uint256)' "$publisher")" 175000
is "the fee beside it" "$(get "$escrow" 'feesOf(address)(uint256)' "$publisher")" 35000
redeem "$claims"
is "paid for the same vouchers again" "$paid" 0

echo "--- closing"
send "$payer" "$escrow" "requestClose($parts)" "$session" "$provider" "$model" 2
send "$payer" "$escrow" "cancelClose($parts)" "$session" "$provider" "$model" 2
is "the second channel, after all" "$(slot "$second")" "6000000 2000000 0 1"
send "$payer" "$escrow" "requestClose($parts)" "$session" "$provider" "$model" 1
refused "topping up while it closes" 'CloseAlreadyRequested(uint40)' "${own[@]}" "topUp($parts,uint96)" "$session" "$provider" "$model" 1 1
channel='(address,address,address,bytes32,uint96)'
refused "finalising at once" 'TooEarly(uint40)' "$escrow" "finalizeClose($channel)" "($payer,$session,$provider,$model,1)"
claim "$first" 1 2000000 2000000
redeem "$claim"
is "paid while it closes" "$paid" 500000
"$cast" rpc evm_increaseTime 86400 >/dev/null
"$cast" rpc evm_mine >/dev/null
send "$deployer" "$escrow" "finalizeClose($channel)" "($payer,$session,$provider,$model,1)"
is "the first channel, closed" "$(slot "$first")" "2000000 2000000 0 3"
send "$provider" "$escrow" "closeByProvider($channel)" "($payer,$session,$provider,$model,2)"
is "the second channel, closed" "$(slot "$second")" "2000000 2000000 0 3"
claim "$first" 1 4000000 4000000
redeem "$claim"
is "paid on a closed channel" "$paid" 0

echo "--- everybody takes what is theirs"
is "free balance after closing" "$(free)" 11000000
send "$payer" "$escrow" 'withdraw(uint96)' 11000000
is "the payer's account" "$(tokens "$payer")" 96000000
send "$deployer" "$escrow" 'claimCredit(address)' "$publisher"
send "$deployer" "$escrow" 'claimFees(address[])' "[$publisher]"
is "the provider's account" "$(tokens "$provider")" 3760000
is "the publisher's account" "$(tokens "$publisher")" 200000
is "the treasury's account" "$(tokens "$treasury")" 40000
is "what the escrow still holds" "$(tokens "$escrow")" 0
echo "a whole life by cast: $SECONDS s"
