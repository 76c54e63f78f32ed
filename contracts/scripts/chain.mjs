// What the scripts share: a chain, the contracts, and packed claims.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  createPublicClient,
  createTestClient,
  createWalletClient,
  encodePacked,
  http,
  keccak256,
  parseSignature,
  signatureToCompactSignature,
  toHex,
} from "viem";
import { mnemonicToAccount } from "viem/accounts";
import { foundry } from "viem/chains";

/** A file of contracts/. */
export const here = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));

/** The chain id that development chains use. */
export const chainId = foundry.id;

/** An account that every development chain gives coin. */
export const funded = (addressIndex) =>
  mnemonicToAccount("test test test test test test test test test test test junk", { addressIndex });

/** The program itself; the launcher that npm puts before it starts more slowly. */
function anvilProgram() {
  const folder = here("node_modules/@foundry-rs");
  const found = readdirSync(folder)
    .filter((name) => name.startsWith("anvil-"))
    .map((name) => `${folder}/${name}/bin/anvil`)
    .find((path) => existsSync(path));
  return found ?? here("node_modules/.bin/anvil");
}

/** Starts an anvil on a free port; gives its URL and how to end it. */
export async function startAnvil() {
  const child = spawn(anvilProgram(), ["--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  const address = await new Promise((resolve, reject) => {
    let said = "";
    child.on("error", reject);
    child.on("exit", () => reject(new Error(`anvil ended: ${said}`)));
    child.stdout.on("data", (data) => {
      said += data;
      const found = /Listening on (\S+)\n/.exec(said);
      if (found) resolve(found[1]);
    });
  });
  child.removeAllListeners("exit");
  return { url: `http://${address}`, end: () => child.kill() };
}

/** Fields of a typed structure, from Solidity's way to write them. */
export const fields = (text) =>
  text.split(", ").map((part) => ({ type: part.split(" ")[0], name: part.split(" ")[1] }));

/** What a chain is asked and told. */
export class Chain {
  constructor(url) {
    const options = { chain: foundry, transport: http(url), pollingInterval: 20, cacheTime: 0 };
    this.client = createPublicClient(options);
    this.wallet = createWalletClient(options);
    this.test = createTestClient({ ...options, mode: "anvil" });
  }

  /** Waits for a transaction that must succeed. */
  async mined(hash) {
    const receipt = await this.client.waitForTransactionReceipt({ hash });
    assert.equal(receipt.status, "success");
    return receipt;
  }

  /** Deploys an artifact. */
  async deploy(account, name, args = []) {
    const { abi, bytecode } = JSON.parse(readFileSync(here(`artifacts/${name}.json`), "utf8"));
    const receipt = await this.mined(await this.wallet.deployContract({ account, abi, bytecode, args }));
    return { abi, address: receipt.contractAddress };
  }

  read(contract, functionName, ...args) {
    return this.client.readContract({ ...contract, functionName, args });
  }

  /** Sends a call and gives its receipt. */
  async write(account, contract, functionName, ...args) {
    return this.mined(await this.wallet.writeContract({ ...contract, account, functionName, args }));
  }

  /** Asks what a call would do, sends it, and gives what it returned. */
  async send(account, contract, functionName, ...args) {
    const { result } = await this.client.simulateContract({ ...contract, account, functionName, args });
    await this.write(account, contract, functionName, ...args);
    return result;
  }

  /** Moves time forward. */
  async pass(seconds) {
    await this.test.increaseTime({ seconds });
    await this.test.mine({ blocks: 1 });
  }
}

/** The EIP-712 domain of an escrow. */
export const domainOf = (escrow) => ({ name: "Rialto", version: "1", chainId, verifyingContract: escrow.address });

/** A session key's voucher, as wallets sign typed data. */
export async function voucher(escrow, session, channelId, cumulative) {
  const message = { channelId, cumulative, receiptsHead: keccak256(toHex(`receipts up to ${cumulative}`)) };
  const types = { Voucher: fields("bytes32 channelId, uint96 cumulative, bytes32 receiptsHead") };
  const domain = domainOf(escrow);
  const signature = await session.signTypedData({ domain, types, primaryType: "Voucher", message });
  return { message, signature };
}

/** A claim of `amount` under a voucher: 172 bytes. */
export function packClaim(params, { message, signature }, amount) {
  const { r, yParityAndS } = signatureToCompactSignature(parseSignature(signature));
  const kinds = ["address", "address", "uint96", "uint96", "uint96", "bytes32", "bytes32", "bytes32"];
  const { payer, signer, salt } = params;
  return encodePacked(kinds, [payer, signer, salt, message.cumulative, amount, message.receiptsHead, r, yParityAndS]);
}
