#!/usr/bin/env node
// Mutation testing: breaks the escrow in one place at a time and asks whether a test notices. See README.md.
//
//   node mutate.js [--limit N] [--seed S] [--match REGEX] [--again] [--list]
//
// --limit takes N mutants, chosen by the seed; --match only those whose id matches; --again only those that survived the
// last run, whose other verdicts are kept. Writes mutation.json and survivors.md; fails when the score is below 90%.
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { createHash } = require("node:crypto");
const { spawn } = require("node:child_process");
const { parseArgs } = require("node:util");

/// All that the escrow's own bytecode is made of.
const TARGETS = ["Escrow", "Claims", "ChannelSlot", "Credit", "Guarded", "Orders"].map((name) => `src/${name}.sol`);
/// Gas ceilings notice every change and say nothing about it, proofs are for the prover, and the rest has no escrow in it.
const LEFT_OUT = ["Gas", "Proofs", "Stakes", "TestDollar"].map((name) => `${name}.t.sol`);

async function main() {
  const { values: options } = parseArgs({
    options: {
      limit: { type: "string" }, seed: { type: "string", default: "Rialto" }, match: { type: "string" },
      again: { type: "boolean" }, list: { type: "boolean" },
    },
  });
  const here = __dirname;
  const contracts = path.dirname(here);
  const tests = fs.readdirSync(path.join(contracts, "test")).filter((name) => name.endsWith(".t.sol") && !LEFT_OUT.includes(name));
  const bench = new Bench(contracts, tests);
  const all = bench.mutants(TARGETS);
  const previous = options.again ? JSON.parse(fs.readFileSync(path.join(here, "mutation.json"))).mutants : [];
  const survived = new Set(previous.filter((m) => m.verdict === "survived").map((m) => m.id));
  const chosen = all
    .filter((m) => !options.match || new RegExp(options.match).test(m.id))
    .filter((m) => !options.again || survived.has(m.id))
    .sort((a, b) => (digest(options.seed + a.id) < digest(options.seed + b.id) ? -1 : 1))
    .slice(0, Number(options.limit ?? all.length));
  if (options.list) {
    for (const m of chosen) console.log(`${m.file}:${m.line} ${m.operator}: ${m.before} => ${m.after}`);
    console.log(`${chosen.length} of ${all.length}`);
    return 0;
  }

  const known = JSON.parse(fs.readFileSync(path.join(here, "equivalent.json")));
  await bench.baseline();
  const verdicts = previous.filter((m) => !chosen.some((c) => c.id === m.id));
  const started = Date.now();
  for (const [i, mutant] of chosen.entries()) {
    const result = { ...describe(mutant), ...(await bench.judge(mutant)) };
    verdicts.push(result);
    console.log(`${i + 1}/${chosen.length} ${Math.round((Date.now() - started) / 1000)} s ${result.verdict} ${mutant.id}${result.by ? ` [${result.by}]` : ""}`);
    if (i % 25 === 24 || i + 1 === chosen.length) write(here, verdicts, known, all.length, options.seed, bench);
  }
  const summary = write(here, verdicts, known, all.length, options.seed, bench);
  bench.close();
  console.log(summary);
  return summary.score >= 90 ? 0 : 1;
}

/// A private copy of the contracts whose tests were compiled once. A mutant is compiled here, by a compiler that stays loaded,
/// and only its bytecode reaches forge, whose tests deploy what the artifact says (dynamic_test_linking).
class Bench {
  /// `tests` are the files of tests that judge.
  constructor(contracts, tests) {
    this.contracts = contracts;
    this.solc = require(path.join(contracts, "node_modules/solc"));
    const memory = fs.existsSync("/dev/shm") ? "/dev/shm" : os.tmpdir();
    this.dir = fs.mkdtempSync(path.join(memory, "mutate-"));
    for (const name of ["src", "vectors", "foundry.toml", ...this.withImports(tests.map((name) => `test/${name}`))]) {
      fs.cpSync(path.join(contracts, name), path.join(this.dir, name), { recursive: true });
    }
    this.write("src/Escrow.sol", this.read("src/Escrow.sol"));
    fs.symlinkSync(path.join(contracts, "node_modules"), path.join(this.dir, "node_modules"));
    this.artifact = path.join(this.dir, "out/Escrow.sol/Escrow.json");
    this.byBytecode = new Map();
  }

  /// Files of test/ and what they import of it, so that nothing else is compiled.
  withImports(files) {
    const found = new Set();
    const visit = (file) => {
      if (found.has(file) || !file.startsWith("test/")) return;
      found.add(file);
      for (const [, to] of this.read(file).matchAll(/from "(\.[^"]+)"/g)) visit(path.join(path.dirname(file), to));
    };
    files.forEach(visit);
    return found;
  }

  mutants(files) {
    const { mutantsOf } = require("./mutants.js");
    const sources = Object.fromEntries(files.map((file) => [file, { content: this.read(file) }]));
    const output = this.compile(sources, { outputSelection: { "*": { "": ["ast"] } } });
    return files.flatMap((file) => mutantsOf(file, this.read(file), output.sources[file].ast));
  }

  read(file) {
    return fs.readFileSync(path.join(this.contracts, file.startsWith("@") ? `node_modules/${file}` : file), "utf8");
  }

  write(file, source) {
    fs.writeFileSync(path.join(this.dir, file), withoutIr(source));
  }

  compile(sources, settings) {
    const found = (file) => ({ contents: sources[file]?.content ?? this.read(file) });
    return JSON.parse(this.solc.compile(JSON.stringify({ language: "Solidity", sources, settings }), { import: found }));
  }

  /// The escrow's creation code with some sources changed; undefined if it does not compile. Not optimised, which takes a
  /// tenth of the time, except to see whether a survivor is the same program.
  bytecode(changed = {}, optimised = false) {
    const escrow = withoutIr(changed["src/Escrow.sol"]?.content ?? this.read("src/Escrow.sol"));
    const sources = { ...changed, "src/Escrow.sol": { content: escrow } };
    const output = this.compile(sources, settings(optimised, "src/Escrow.sol", "Escrow"));
    if ((output.errors ?? []).some((e) => e.severity === "error")) return undefined;
    return output.contracts["src/Escrow.sol"].Escrow.evm.bytecode.object;
  }

  async baseline() {
    const { code, output } = await this.forge(this.dir);
    if (code !== 0) throw new Error(`tests fail without a mutant:\n${output}`);
    this.original = JSON.parse(fs.readFileSync(this.artifact));
    if (this.original.bytecode.object !== `0x${this.bytecode()}`) throw new Error("forge compiles to something else");
    const same = { verdict: "equivalent", why: "compiles to the same bytecode" };
    this.byBytecode.set(digest(this.bytecode()), same).set(digest(this.bytecode({}, true)), same);
    const broken = await this.test("fe");
    if (broken.verdict !== "killed") throw new Error("the tests do not deploy what the artifact says");
  }

  async judge(mutant) {
    const source = Buffer.from(this.read(mutant.file));
    const parts = [source.subarray(0, mutant.start), Buffer.from(mutant.replacement), source.subarray(mutant.end)];
    const changed = { [mutant.file]: { content: Buffer.concat(parts).toString() } };
    const bytecode = this.bytecode(changed);
    if (bytecode === undefined) return { verdict: "does not compile" };
    const key = digest(bytecode);
    const known = this.byBytecode.get(key);
    if (known) return known;
    let verdict = await this.test(bytecode);
    if (verdict.verdict === "survived") verdict = this.byBytecode.get(digest(this.bytecode(changed, true))) ?? verdict;
    if (verdict.verdict === "survived") verdict = await this.asLibrary(mutant.file, changed);
    this.byBytecode.set(key, { ...verdict, why: `same bytecode as ${mutant.id}` });
    return verdict;
  }

  async test(bytecode) {
    fs.writeFileSync(this.artifact, JSON.stringify({ ...this.original, bytecode: { ...this.original.bytecode, object: `0x${bytecode}` } }));
    return this.verdict(this.dir);
  }

  async verdict(dir) {
    // What an earlier mutant taught the fuzzer must not help to kill this one.
    for (const name of ["fuzz", "invariant"]) fs.rmSync(path.join(dir, "cache", name), { recursive: true, force: true });
    const { code, output, late } = await this.forge(dir);
    if (code === 0) return { verdict: "survived" };
    const test = (/^\[FAIL[^\n]*\] (\w+)/m.exec(output) ?? /^ (invariant_\w+)/m.exec(output))?.[1];
    if (!test && !late) throw new Error(`no verdict:\n${output}`);
    return { verdict: "killed", by: late ? "time" : test };
  }

  /// Tests that import a library have its code in their own bytecode.
  async asLibrary(file, changed) {
    const kept = this.patchTests(file, changed);
    const verdict = kept.length ? await this.verdict(this.dir) : { verdict: "survived" };
    for (const [artifact, content] of kept) fs.writeFileSync(artifact, content);
    return verdict;
  }

  /// Puts a changed library into the artifacts of the tests that import it; returns what they were.
  patchTests(file, changed) {
    const tests = fs.readdirSync(path.join(this.dir, "test")).filter((name) => name.endsWith(".sol"));
    const kept = [];
    for (const name of tests) {
      const content = fs.readFileSync(path.join(this.dir, "test", name), "utf8");
      if (!content.includes(`"../${file}"`) || file === "src/Escrow.sol") continue;
      const source = `test/${name}`;
      const escrow = { "src/Escrow.sol": { content: withoutIr(this.read("src/Escrow.sol")) } };
      const { contracts = {} } = this.compile({ ...escrow, ...changed, [source]: { content } }, settings(false, source, "*"));
      for (const [contract, { evm }] of Object.entries(contracts[source] ?? {})) {
        const artifact = path.join(this.dir, "out", name, `${contract}.json`);
        kept.push([artifact, fs.readFileSync(artifact)]);
        const parsed = JSON.parse(kept.at(-1)[1]);
        for (const part of ["bytecode", "deployedBytecode"]) parsed[part].object = `0x${evm[part].object}`;
        fs.writeFileSync(artifact, JSON.stringify(parsed));
      }
    }
    return kept;
  }

  /// The tests that fail when these sources are changed; undefined if they do not compile.
  async failures(changed) {
    const bytecode = this.bytecode(changed);
    if (bytecode === undefined) return undefined;
    const kept = Object.keys(changed).flatMap((file) => this.patchTests(file, changed));
    fs.writeFileSync(this.artifact, JSON.stringify({ ...this.original, bytecode: { ...this.original.bytecode, object: `0x${bytecode}` } }));
    const { output } = await this.forge(this.dir, []);
    for (const [artifact, content] of kept.reverse()) fs.writeFileSync(artifact, content);
    return new Set([...output.matchAll(/^\[FAIL[^\n]*\] (\w+)/gm)].map((match) => match[1]));
  }

  /// All tests, stopping at the first that fails; no filter, because forge then compiles everything again to apply it.
  forge(dir, options = ["--fail-fast"]) {
    const architecture = { x64: "amd64" }[process.arch] ?? process.arch;
    const binary = path.join(this.contracts, `node_modules/@foundry-rs/forge-${process.platform}-${architecture}/bin/forge`);
    const env = {
      ...process.env, FOUNDRY_SOLC: path.join(this.contracts, "solc.js"), FOUNDRY_DYNAMIC_TEST_LINKING: "true", FOUNDRY_FUZZ_RUNS: "48",
      FOUNDRY_INVARIANT_RUNS: "6", FOUNDRY_INVARIANT_SHRINK_RUN_LIMIT: "0", FOUNDRY_VIA_IR: "false", FOUNDRY_OPTIMIZER: "false", NO_COLOR: "1",
    };
    return new Promise((resolve) => {
      const child = spawn("nice", ["-n", "10", binary, "test", ...options], { cwd: dir, env });
      let output = "";
      let late = false;
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (output += part));
      const timer = setTimeout(() => { late = true; child.kill("SIGKILL"); }, 180_000);
      child.on("close", (code) => { clearTimeout(timer); resolve({ code, output, late }); });
    });
  }

  close() {
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

function settings(optimised, file, contract) {
  return {
    evmVersion: "cancun", optimizer: { enabled: optimised, runs: 1_000_000 }, metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { [file]: { [contract]: ["evm.bytecode.object", "evm.deployedBytecode.object"] } },
  };
}

/// The same program in a form that the old code generator can compile, which is five times as fast: it writes a modifier out
/// in place, and then runs out of stack.
function withoutIr(source) {
  return source.replace(/(modifier debiting\([^)]*\) \{)([\s\S]*?)(\n +_;\n +\})/, (whole, head, body, tail) => {
    return `${head} _debitNow(payer, amount);${tail} function _debitNow(address payer, uint256 amount) private {${body}}`;
  });
}

function write(here, verdicts, known, total, seed, bench) {
  for (const mutant of verdicts) {
    const reason = known[mutant.id];
    if (mutant.verdict === "survived" && reason) Object.assign(mutant, { verdict: "equivalent", why: reason });
  }
  const count = (verdict) => verdicts.filter((m) => m.verdict === verdict).length;
  const valid = count("killed") + count("survived");
  const sources = TARGETS.map((file) => {
    return [file, digest(fs.readFileSync(path.join(bench.contracts, file))).slice(0, 16)];
  });
  const summary = {
    compiler: bench.solc.version(), seed, of: total, tried: verdicts.length, killed: count("killed"), survived: count("survived"),
    equivalent: count("equivalent"), doesNotCompile: count("does not compile"),
    score: Math.floor((1000 * count("killed")) / Math.max(valid, 1)) / 10, sources: Object.fromEntries(sources),
  };
  const order = (a, b) => (a.file === b.file ? a.line - b.line : a.file < b.file ? -1 : 1);
  verdicts.sort(order);
  const lines = verdicts.map((m) => JSON.stringify(m)).join(",\n");
  fs.writeFileSync(path.join(here, "mutation.json"), `{"summary": ${JSON.stringify(summary, null, 1)},\n"mutants": [\n${lines}\n]}\n`);
  fs.writeFileSync(path.join(here, "survivors.md"), table(summary, verdicts));
  return summary;
}

function table(summary, verdicts) {
  const cell = (text) => `\`${text.replaceAll("|", "\\|").replaceAll("`", "'")}\``;
  const rows = (list, why) => list.map((m) => `| ${m.file.slice(4)}:${m.line} ${m.function} | ${cell(m.before)} | ${cell(m.after || "nothing")} | ${why(m)} |`);
  const head = (title) => ["| where | from | to | " + title + " |", "|---|---|---|---|"];
  const named = verdicts.filter((m) => m.verdict === "equivalent" && !m.why.startsWith("compiles to"));
  const same = verdicts.filter((m) => m.verdict === "equivalent").length - named.length;
  return [
    "# Mutants that no test notices", "",
    `Written by mutate.js: ${summary.tried} of ${summary.of} mutants tried (seed ${summary.seed}), ${summary.doesNotCompile} do not compile, ` +
      `${same} compile to the same bytecode, ${named.length} are equivalent for the reason below. ` +
      `Of the rest, ${summary.killed} are killed and ${summary.survived} survive: **${summary.score}%**.`,
    "", "## Survivors", "", ...head("what is missing"), ...rows(verdicts.filter((m) => m.verdict === "survived"), () => "no test notices"),
    "", "## Equivalent", "", ...head("why nobody can notice"), ...rows(named, (m) => m.why), "",
  ].join("\n");
}

const describe = ({ id, file, function: name, operator, before, after, line }) => ({ id, file, function: name, operator, before, after, line });
const digest = (data) => createHash("sha256").update(data).digest("hex");

if (require.main === module) main().then((code) => process.exit(code));
module.exports = { Bench };
