#!/usr/bin/env node
// Puts the flaws that auditors found in contracts of this kind into the escrow, one at a time, and asks whether the test that
// is named after the finding notices. See README.md.
const fs = require("node:fs");
const path = require("node:path");
const { Bench } = require("./mutate.js");

async function main() {
  const bench = new Bench(path.dirname(__dirname), ["Audits.t.sol"]);
  await bench.baseline();
  let unnoticed = 0;
  for (const { finding, test, edits } of JSON.parse(fs.readFileSync(path.join(__dirname, "flaws.json")))) {
    const failed = await bench.failures(withEdits(bench, edits));
    const noticed = failed?.has(test) ?? false;
    if (!noticed) unnoticed += 1;
    const others = failed ? `, as do ${failed.size - 1} others` : "";
    console.log(noticed ? `${test} notices${others}: ${finding}` : `NOT NOTICED by ${test}: ${finding}${failed ? ` (${[...failed]})` : " (does not compile)"}`);
  }
  bench.close();
  return unnoticed === 0 ? 0 : 1;
}

/// The sources with every occurrence of each text replaced; a text that is not there any more is an error.
function withEdits(bench, edits) {
  const changed = {};
  for (const [file, before, after] of edits) {
    const content = changed[file]?.content ?? bench.read(file);
    if (!content.includes(before)) throw new Error(`${file} has no longer: ${before}`);
    changed[file] = { content: content.replaceAll(before, after) };
  }
  return changed;
}

main().then((code) => process.exit(code));
