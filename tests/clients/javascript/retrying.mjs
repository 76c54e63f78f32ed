// Makes the calls that it reads as JSON, with the official client as it comes, and prints what each of them came to.

import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { messages, model, patience } from "./asking.mjs";

async function call({ url, key, stream }) {
  const client = new OpenAI({ baseURL: url, apiKey: key, timeout: patience });
  const asked = { model, messages, max_tokens: 24, temperature: 0 };
  if (!stream) {
    const answer = await client.chat.completions.create(asked);
    return { text: answer.choices[0].message.content, cost: Number(answer.usage.trade.cost_nanodollars) };
  }
  let [text, cost] = ["", null];
  for await (const chunk of await client.chat.completions.create({ ...asked, stream, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.delta.content ?? "";
    cost = chunk.usage ? Number(chunk.usage.trade.cost_nanodollars) : cost;
  }
  return { text, cost };
}

const calls = JSON.parse(readFileSync(0, "utf8"));
const ended = new Array(calls.length);
const next = calls.entries();
await Promise.all(
  Array.from({ length: 8 }, async () => {
    for (const [index, one] of next) {
      ended[index] = await call(one).catch((error) => ({ error: error.constructor.name, status: error.status ?? null }));
    }
  }),
);
console.log(JSON.stringify(ended));
process.exit(0);
