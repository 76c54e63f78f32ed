#!/usr/bin/env bash
# `forge test` in a fraction of the time: the contracts are compiled as they are deployed, the tests without the optimizer.
# The tests take the contracts from out/; of src/, only libraries are compiled for them, as parts of whatever calls them.
# Arguments go to forge.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

./install.sh
FOUNDRY_PROFILE=default node_modules/.bin/forge build src test/Probe.sol
# Where tests whose artifacts are in out/tests look for those of src/.
mkdir -p out/tests
ln -sfn .. out/tests/src
export FOUNDRY_OUT=out/tests FOUNDRY_CACHE_PATH=cache/tests FOUNDRY_SKIP='["src/**"]' FOUNDRY_DYNAMIC_TEST_LINKING=true
# The size of a test is no matter (5574, 3860); the other two are those of foundry.toml.
export FOUNDRY_VIA_IR=false FOUNDRY_OPTIMIZER=false FOUNDRY_IGNORED_ERROR_CODES='[5667, 2394, 5574, 3860]'
node_modules/.bin/forge test "$@"

# Forge leaves a file with a contract that inherits from src/ as it is: what it deploys is compiled as the file is. That is
# meant for the flawed contracts alone.
node -e '
  const { mocks } = JSON.parse(require("node:fs").readFileSync("cache/tests/solidity-files-cache.json"));
  const others = mocks.filter((file) => !file.includes("/test/mutants/"));
  if (others.length > 0) {
    console.error(`contracts that inherit from src/ belong in test/mutants/, not in ${others}`);
    process.exit(1);
  }
'
