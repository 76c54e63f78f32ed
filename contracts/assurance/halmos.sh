#!/usr/bin/env bash
# Symbolic proofs of Proofs.t.sol on the bytecode that is deployed, and of split.py. Fails unless each check_ is proved and
# each refute_ has its counterexample. Arguments go to halmos, as in: halmos.sh --match-test check_redeem_one
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
contracts="$(dirname "$here")"
venv="$("$here/setup.sh")"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
mkdir "$work/test"
cp -r "$contracts/src" "$contracts/foundry.toml" "$contracts/solc.js" "$work/"
cp "$here/Proofs.t.sol" "$work/test/"
ln -s "$contracts/node_modules" "$work/node_modules"
export PATH="$venv/bin:$contracts/node_modules/.bin:$PATH"
"$venv/bin/python" "$here/split.py"
cd "$work"
# Not the default solver: yices does not finish on some subtractions that z3 sees through at once.
prove() {
  halmos --solver z3 --solver-timeout-assertion 120s --no-status "$@"
}
prove --match-test "^check_" "$@" | grep --extended-regexp "PASS|FAIL|TIMEOUT|ERROR|Counterexample|p_|result"
if [ $# = 0 ]; then
  if prove --match-test '^refute_' >"$work/refuted"; then
    echo "a refute_ holds: the proofs are of nothing"
    exit 1
  fi
  grep --quiet Counterexample "$work/refuted" || { cat "$work/refuted"; exit 1; }
  echo "refuted, as it must be: $(grep --only-matching 'refute_[a-z_]*' "$work/refuted" | sort -u | tr '\n' ' ')"
fi
