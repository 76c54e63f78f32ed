// What each operation costs, by the receipts of its transaction: base and calldata included. Measured on an anvil of its
// own and, with RPC_URL, on that development chain too. Checks snapshots/gas.json within 1%, and the goals; with --write
// writes it instead. Each figure is the highest of the chains.
//
// The situation is that of test/Gas.t.sol: nobody is new, so every balance that is touched was above zero before. A slot
// that was zero costs 17,100 more, once. Parties are keys by chance, the same in every run; the amount is a dollar.
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { concat, keccak256, maxUint256, parseEther, toHex } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { Chain, funded, here, packClaim, startAnvil, voucher } from "./chain.mjs";

const DOLLAR = 1_000_000n;
const DAY = 86_400;
const CHANNELS = 50n;
const FILE = here("snapshots/gas.json");
const GOALS = {
  deposit_and_open: 70_000,
  open_from_balance: 55_000,
  redeem_one: 68_000,
  redeem_per_channel_25: 15_000,
  redeem_per_channel_50: 13_000,
  request_close: 30_000,
  finalize_close: 36_000,
};

const party = (name) => privateKeyToAccount(keccak256(toHex(name)));
const [payer, provider, publisher, treasury, guardian, session] = [
  "payer",
  "provider",
  "publisher",
  "treasury",
  "guardian",
  "session key",
].map(party);

/** A market in which everybody has held and earned something before. */
async function market(chain) {
  const deployer = funded(0);
  for (const { address } of [payer, provider, publisher]) {
    await chain.test.setBalance({ address, value: parseEther("1") });
  }
  const token = await chain.deploy(deployer, "TestDollar");
  const models = await chain.deploy(deployer, "Models");
  const terms = [token.address, models.address, guardian.address, treasury.address, 100, DAY];
  const escrow = await chain.deploy(deployer, "Escrow", terms);
  const modelId = await chain.send(publisher, models, "register", keccak256(toHex("manifest")), "Q8_0", "MIT", 500);
  await chain.write(deployer, token, "mint", payer.address, 1_000n * DOLLAR);
  await chain.write(deployer, token, "mint", provider.address, 1n);
  await chain.write(payer, token, "approve", escrow.address, maxUint256);
  await chain.write(payer, escrow, "deposit", 100n * DOLLAR);
  const here = { chain, escrow, modelId };
  for (let salt = 0n; salt < CHANNELS; salt += 1n) {
    await open(here, "depositAndOpen", salt);
  }
  await open(here, "depositAndOpen", 100n);
  await redeem(here, [[100n, DOLLAR / 2n]]);
  return here;
}

const own = ({ modelId }, salt) => [session.address, provider.address, modelId, salt];
const params = ({ modelId }, salt) => ({
  payer: payer.address,
  signer: session.address,
  provider: provider.address,
  modelId,
  salt,
});

const open = (market, how, salt) => market.chain.write(payer, market.escrow, how, ...own(market, salt), DOLLAR);

/** Redeems channels, each up to a total. */
async function redeem(market, totals) {
  const claims = [];
  for (const [salt, total] of totals) {
    const parts = params(market, salt);
    const id = await market.chain.read(market.escrow, "channelIdOf", ...Object.values(parts));
    claims.push(packClaim(parts, await voucher(market.escrow, session, id, total), total));
  }
  return market.chain.write(provider, market.escrow, "redeem", [{ modelId: market.modelId, claims: concat(claims) }]);
}

const batch = (count) => Array.from({ length: count }, (_, salt) => [BigInt(salt), DOLLAR / 3n + BigInt(salt)]);

/** Gas by operation, each in the same situation. */
async function measure(url) {
  const chain = new Chain(url);
  const all = await chain.test.snapshot();
  const scene = await market(chain);
  const one = async (act, per = 1n) => {
    const id = await chain.test.snapshot();
    const { gasUsed } = await act();
    await chain.test.revert({ id });
    return Number(gasUsed / per);
  };
  const gas = {
    deposit_and_open: await one(() => open(scene, "depositAndOpen", 200n)),
    open_from_balance: await one(() => open(scene, "open", 200n)),
    redeem_one: await one(() => redeem(scene, [[0n, DOLLAR / 3n]])),
    redeem_per_channel_25: await one(() => redeem(scene, batch(25)), 25n),
    redeem_per_channel_50: await one(() => redeem(scene, batch(50)), 50n),
    request_close: await one(() => chain.write(payer, scene.escrow, "requestClose", ...own(scene, 1n))),
  };
  await chain.write(payer, scene.escrow, "requestClose", ...own(scene, 1n));
  await chain.pass(DAY);
  gas.finalize_close = await one(() => chain.write(funded(0), scene.escrow, "finalizeClose", params(scene, 1n)));
  // Zero bytes are cheaper: how many of a channel's parts are, by the chance that chose these keys.
  const zeros = own(scene, 0n).slice(0, 3).map((part) => part.slice(2).match(/../g).filter((byte) => byte === "00").length);
  await chain.test.revert({ id: all });
  return { gas, zeros: zeros.reduce((sum, count) => sum + count) };
}

function table(chains) {
  const names = Object.keys(chains);
  const right = (text) => String(text).padStart(12);
  console.log(`${"gas".padEnd(24)}${names.map(right).join("")}${right("goal")}`);
  const highest = {};
  for (const [key, goal] of Object.entries(GOALS)) {
    const figures = names.map((name) => chains[name].gas[key]);
    highest[key] = Math.max(...figures);
    console.log(`${key.padEnd(24)}${figures.map(right).join("")}${right(goal)}`);
    assert(Math.min(...figures) * 1.01 >= highest[key], `${key}: the chains differ by more than 1%`);
  }
  console.log(`zero bytes among the parts of a channel: ${names.map((name) => chains[name].zeros)} (each saves 12)`);
  return highest;
}

function check(highest) {
  const committed = JSON.parse(readFileSync(FILE, "utf8"));
  assert.deepEqual(Object.keys(committed), Object.keys(GOALS), "snapshots/gas.json has other keys");
  for (const [key, figure] of Object.entries(highest)) {
    const kept = committed[key];
    assert(Number.isInteger(kept), `${key} is not an integer`);
    assert(Math.abs(figure - kept) <= kept * 0.01, `${key}: ${figure}, and snapshots/gas.json says ${kept}`);
    assert(figure <= GOALS[key], `${key}: ${figure} is above the goal of ${GOALS[key]}`);
  }
  console.log("snapshots/gas.json is within 1%, and every goal is met");
}

const anvil = await startAnvil();
try {
  const chains = { anvil: await measure(anvil.url) };
  if (process.env.RPC_URL) chains.devchain = await measure(process.env.RPC_URL);
  const highest = table(chains);
  if (process.argv.includes("--write")) {
    writeFileSync(FILE, `${JSON.stringify(highest, null, 2)}\n`);
    console.log("written to contracts/snapshots/gas.json");
  } else {
    check(highest);
  }
} finally {
  anvil.end();
}
