#!/usr/bin/env node
// Lets forge use the compiler of the npm registry, offline: forge asks for --version, then pipes standard JSON.
const { readFileSync } = require("node:fs");
const solc = require("solc");
if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else {
  process.stdout.write(solc.compile(readFileSync(0, "utf8")));
}
