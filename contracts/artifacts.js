// Writes what others need of the compiled contracts to artifacts/, or with --check fails when the committed files differ.
const fs = require("node:fs");
const path = require("node:path");

const check = process.argv.includes("--check");
let stale = false;
for (const name of ["Escrow", "Providers", "Models", "TestDollar"]) {
  const compiled = JSON.parse(fs.readFileSync(path.join(__dirname, "out", `${name}.sol`, `${name}.json`), "utf8"));
  const artifact = { contractName: name, abi: compiled.abi, bytecode: compiled.bytecode.object };
  const text = `${JSON.stringify(artifact, null, 1)}\n`;
  const file = path.join(__dirname, "artifacts", `${name}.json`);
  if (!check) {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  } else if (!fs.existsSync(file) || fs.readFileSync(file, "utf8") !== text) {
    console.error(`contracts/artifacts/${name}.json is not what the sources compile to: run contracts/build.sh and commit`);
    stale = true;
  }
}
process.exit(stale ? 1 : 0);
