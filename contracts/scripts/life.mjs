// A whole life of channels by viem alone, as life.sh is by cast: nothing of the market's own programs is needed. The buyer
// here holds no coin of the chain, ever: it signs, and somebody else sends. It starts an anvil of its own, or uses the
// development chain at RPC_URL. The accounts with coin are those of every development chain.
import assert from "node:assert/strict";
import { BaseError, concat, encodeAbiParameters, keccak256, parseSignature, toHex, zeroAddress } from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { Chain, chainId, domainOf, fields, funded, packClaim, startAnvil, voucher } from "./chain.mjs";

const DOLLAR = 1_000_000n;
const DAY = 86_400n;

const [relayer, provider, publisher, treasury] = [0, 2, 3, 4].map(funded);
const buyer = privateKeyToAccount(generatePrivateKey());
const session = privateKeyToAccount(generatePrivateKey());

const anvil = process.env.RPC_URL ? undefined : await startAnvil();
const chain = new Chain(process.env.RPC_URL ?? anvil.url);
const [read, send] = [chain.read.bind(chain), chain.send.bind(chain)];

let checks = 0;
function is(what, got, expected) {
  assert.deepEqual(got, expected, what);
  checks += 1;
  console.log(`ok  ${what}`);
}

async function refused(what, error, from, contract, functionName, ...args) {
  const call = { ...contract, account: from, functionName, args };
  const failure = await chain.client.simulateContract(call).then(() => undefined, (reason) => reason);
  assert(failure instanceof BaseError, `${what} was not refused`);
  is(`${what} is refused`, failure.walk((cause) => cause.data?.errorName)?.data.errorName, error);
}

async function life() {
  // The chain, its contracts, a model.
  const token = await chain.deploy(relayer, "TestDollar");
  const models = await chain.deploy(relayer, "Models");
  const terms = [token.address, models.address, zeroAddress, treasury.address, 100, Number(DAY)];
  const escrow = await chain.deploy(relayer, "Escrow", terms);
  const modelId = await send(publisher, models, "register", keccak256(toHex("a manifest")), "Q8_0", "MIT", 500);
  await send(relayer, token, "mint", buyer.address, 100n * DOLLAR);

  const tokens = (of) => read(token, "balanceOf", of.address ?? of);
  const free = () => read(escrow, "balanceOf", buyer.address);
  const now = async () => (await chain.client.getBlock()).timestamp;
  const deadline = (await now()) + 30n * DAY;
  const tokenDomain = { name: "Rialto Test Dollar", version: "1", chainId, verifyingContract: token.address };
  const domain = domainOf(escrow);
  const params = (salt) => ({ payer: buyer.address, signer: session.address, provider: provider.address, modelId, salt });
  const word = (...pairs) => keccak256(encodeAbiParameters(pairs.map(([type]) => ({ type })), pairs.map(([, value]) => value)));
  const channelId = (salt) => {
    const { payer, signer, provider: seller } = params(salt);
    const accounts = [payer, signer, seller].map((one) => ["address", one]);
    return word(...accounts, ["bytes32", modelId], ["address", token.address], ["uint96", salt]);
  };
  const channel = (salt) => read(escrow, "channel", channelId(salt));
  const slot = (funded, redeemed, closeAt, flags) => ({ funded, redeemed, closeAt, flags });

  const authorize = async (value, nonce) => {
    const message = { from: buyer.address, to: escrow.address, value, validAfter: 0n, validBefore: deadline, nonce };
    const parts = "address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce";
    const types = { ReceiveWithAuthorization: fields(parts) };
    const signed = await buyer.signTypedData({ domain: tokenDomain, types, primaryType: "ReceiveWithAuthorization", message });
    const { v, r, s } = parseSignature(signed);
    return [value, 0n, deadline, Number(v), r, s];
  };
  const order = (primaryType, parts, message) =>
    buyer.signTypedData({ domain, types: { [primaryType]: fields(parts) }, primaryType, message });

  // One signature funds a channel and opens it.
  const first = params(1n);
  await send(relayer, escrow, "depositAndOpenWithAuthorization", first, ...(await authorize(4n * DOLLAR, channelId(1n))));
  is("a channel by an authorization", await channel(1n), slot(4n * DOLLAR, 0n, 0, 1));
  is("its id", await read(escrow, "channelIdOf", ...Object.values(first)), channelId(1n));

  // A permit, and a deposit by an authorization: free balance.
  const permit = { owner: buyer.address, spender: escrow.address, value: 5n * DOLLAR, nonce: await read(token, "nonces", buyer.address), deadline };
  const permitFields = "address owner, address spender, uint256 value, uint256 nonce, uint256 deadline";
  const permitted = parseSignature(
    await buyer.signTypedData({ domain: tokenDomain, types: { Permit: fields(permitFields) }, primaryType: "Permit", message: permit }),
  );
  await send(relayer, escrow, "depositWithPermit", buyer.address, 5n * DOLLAR, deadline, Number(permitted.v), permitted.r, permitted.s);
  is("free balance after a permit", await free(), 5n * DOLLAR);
  const salt = keccak256(toHex("the buyer's first deposit"));
  const kind = keccak256(toHex("Deposit(address payer,bytes32 salt)"));
  const nonce = word(["bytes32", kind], ["address", buyer.address], ["bytes32", salt]);
  const [value, after, before, v, r, s] = await authorize(2n * DOLLAR, nonce);
  await send(relayer, escrow, "depositWithAuthorization", buyer.address, value, after, before, salt, v, r, s);
  is("free balance after an authorization", await free(), 7n * DOLLAR);

  // A signed order opens a second channel out of it.
  const second = params(2n);
  const openFields = "address payer, address signer, address provider, bytes32 modelId, uint96 salt, uint96 amount, uint256 deadline";
  const opening = await order("Open", openFields, { ...second, amount: 6n * DOLLAR, deadline });
  await refused("an order of another amount", "WrongSignature", relayer, escrow, "openWithSig", second, 5n * DOLLAR, opening, deadline);
  await send(relayer, escrow, "openWithSig", second, 6n * DOLLAR, opening, deadline);
  is("a channel by a signed order", await channel(2n), slot(6n * DOLLAR, 0n, 0, 1));
  await refused("the same order again", "InsufficientBalance", relayer, escrow, "openWithSig", second, 6n * DOLLAR, opening, deadline);

  // Vouchers, as wallets sign typed data; the contract's digest is the same.
  const claim = async (salt, cumulative, amount) => {
    const signed = await voucher(escrow, session, channelId(salt), cumulative);
    const digest = await read(escrow, "voucherHash", ...Object.values(signed.message));
    is("a voucher's digest", signed.signature, await session.sign({ hash: digest }));
    return packClaim(params(salt), signed, amount);
  };
  const claims = concat([await claim(1n, 1_500_000n, 1_500_000n), await claim(2n, 2_500_000n, 2_000_000n)]);
  is("bytes of two claims", claims.length, 2 + 2 * 2 * 172);
  const group = (bytes) => [{ modelId, claims: bytes }];
  is("paid for two channels", await send(provider, escrow, "redeem", group(claims)), 3_500_000n);
  is("the provider's account", await tokens(provider), 3_290_000n);
  is("the publisher's royalty", await read(escrow, "creditOf", publisher.address), 175_000n);
  is("the fee beside it", await read(escrow, "feesOf", publisher.address), 35_000n);
  is("paid for the same again", await send(provider, escrow, "redeem", group(claims)), 0n);

  // A signed request closes the first; the provider closes the second.
  const closing = { channelId: channelId(1n), nonce: await read(escrow, "nonces", buyer.address), deadline };
  const asked = await order("RequestClose", "bytes32 channelId, uint256 nonce, uint256 deadline", closing);
  await send(relayer, escrow, "requestCloseWithSig", first, asked, deadline);
  is("when it closes", BigInt((await channel(1n)).closeAt), (await now()) + DAY);
  await refused("finalising at once", "TooEarly", relayer, escrow, "finalizeClose", first);
  is("paid while it closes", await send(provider, escrow, "redeem", group(await claim(1n, 2_000_000n, 2_000_000n))), 500_000n);
  await chain.pass(Number(DAY));
  await send(relayer, escrow, "finalizeClose", first);
  is("the first channel, closed", await channel(1n), slot(2n * DOLLAR, 2n * DOLLAR, 0, 3));
  await send(provider, escrow, "closeByProvider", second);
  is("the second channel, closed", await channel(2n), slot(2n * DOLLAR, 2n * DOLLAR, 0, 3));

  // Everybody takes what is theirs; the buyer by one more signature.
  is("free balance after closing", await free(), 7n * DOLLAR);
  const withdrawal = { payer: buyer.address, amount: 7n * DOLLAR, nonce: await read(escrow, "nonces", buyer.address), deadline };
  const signed = await order("Withdraw", "address payer, uint96 amount, uint256 nonce, uint256 deadline", withdrawal);
  await send(relayer, escrow, "withdrawWithSig", buyer.address, 7n * DOLLAR, signed, deadline);
  await refused("the same order again", "WrongSignature", relayer, escrow, "withdrawWithSig", buyer.address, 7n * DOLLAR, signed, deadline);
  is("the buyer's account", await tokens(buyer), 96n * DOLLAR);
  is("royalties", await send(relayer, escrow, "claimCredit", publisher.address), 200_000n);
  is("fees", await send(relayer, escrow, "claimFees", [publisher.address]), 40_000n);
  is("the provider's account", await tokens(provider), 3_760_000n);
  is("the publisher's account", await tokens(publisher), 200_000n);
  is("the treasury's account", await tokens(treasury), 40_000n);
  is("what the escrow still holds", await tokens(escrow), 0n);
  is("coin that the buyer ever had", await chain.client.getBalance({ address: buyer.address }), 0n);
  is("transactions that the buyer ever sent", await chain.client.getTransactionCount({ address: buyer.address }), 0);
}

const started = Date.now();
try {
  await life();
  console.log(`a whole life by viem: ${checks} checks, ${((Date.now() - started) / 1000).toFixed(1)} s`);
} finally {
  anvil?.end();
}
