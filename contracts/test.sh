#!/usr/bin/env bash
# All that the gate checks of the contracts: committed artifacts, format, tests, gas, lives of channels, flaws. Needs only
# Node and npm. Arguments go to forge's tests.
# FOUNDRY_PROFILE=deep runs the fuzzers and invariants at their full depth.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# The artifacts are those of the default profile, whatever profile the tests run in.
FOUNDRY_PROFILE=default ./build.sh --check
node_modules/.bin/forge fmt --check
./quick.sh "$@"
# Whole lives of channels by other people's tools alone, and gas by receipts, each on an anvil of its own.
unset RPC_URL
scripts/life.sh
node scripts/life.mjs
node scripts/gas.mjs
# Each flaw that auditors found elsewhere, put into the escrow, must turn the test of its name red.
node assurance/flaws.js
