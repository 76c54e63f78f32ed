// Whom the stories ask, and how they look at what comes back.

import assert from "node:assert/strict";
import OpenAI from "openai";

export const model = process.env.RIALTO_CHAT_MODEL ?? "rialto/shakespeare:q8_0";
export const embeddingModel = process.env.RIALTO_EMBEDDING_MODEL ?? "rialto/shakespeare-words:f32";
export const messages = [{ role: "user", content: "To be, or not to be" }];

/** Milliseconds that anything is waited for that must happen: only a hang takes so long, also on a busy machine. */
export const patience = 180_000;

// Retries are off, so that what the gateway answers is what the story sees.
export const client = new OpenAI({ maxRetries: 0, timeout: patience });

/** The call must fail with this class and status, and carry an OpenAI error body. */
export async function expectError(kind, status, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor.name, kind.name, String(error));
    assert.equal(error.status, status);
    assert.ok(error.error?.message && error.error?.type, JSON.stringify(error.error));
    assert.ok("code" in error.error && "param" in error.error, JSON.stringify(error.error));
    return error;
  }
  assert.fail(`no error where ${kind.name} was expected`);
}

/** The whole text, the last finish reason and the usage of a chat stream. */
export async function readStream(stream) {
  let [text, finish, usage] = ["", null, null];
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    if (chunk.usage) {
      assert.equal(usage, null, "usage came twice");
      assert.deepEqual(chunk.choices, [], "usage comes in a chunk of its own");
      usage = chunk.usage;
    }
    for (const choice of chunk.choices) {
      text += choice.delta.content ?? "";
      finish = choice.finish_reason ?? finish;
    }
  }
  return { text, finish, usage };
}
