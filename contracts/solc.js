#!/usr/bin/env node
// Lets forge use the compiler of the npm registry, offline: forge asks for --version, then pipes standard JSON.
const { readFileSync } = require("node:fs");
if (process.argv.includes("--version")) {
  // The package has the compiler's version; the compiler itself takes a second to load.
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${require("solc/package.json").version}`);
} else {
  process.stdout.write(require("solc").compile(readFileSync(0, "utf8")));
}
