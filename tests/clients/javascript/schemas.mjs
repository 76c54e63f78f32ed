// Stories of answers that must be JSON.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { client, expectError, messages, model, readStream } from "./asking.mjs";

// Closed, so that anything else in an answer is noticed.
const schema = {
  type: "object",
  properties: {
    speaker: { enum: ["ROMEO", "JULIET"] },
    sad: { type: "boolean" },
    act: { type: "integer", minimum: 1, maximum: 5 },
    words: { type: "string", maxLength: 16 },
  },
  required: ["speaker", "sad", "act", "words"],
  additionalProperties: false,
};
const response_format = { type: "json_schema", json_schema: { name: "line", strict: true, schema } };
const asked = { model, messages, max_tokens: 300, response_format };

function check(line) {
  assert.deepEqual(Object.keys(line), schema.required, "members come in the order of the schema");
  assert.ok(["ROMEO", "JULIET"].includes(line.speaker), line.speaker);
  assert.equal(typeof line.sad, "boolean");
  assert.ok(Number.isInteger(line.act) && line.act >= 1 && line.act <= 5, String(line.act));
  assert.ok(typeof line.words === "string" && [...line.words].length <= 16, line.words);
}

export const stories = {
  async "an answer is of its schema"() {
    for (const manner of [{ temperature: 0 }, ...[0, 1, 2, 3].map((seed) => ({ temperature: 1, seed }))]) {
      const answer = await client.chat.completions.create({ ...asked, ...manner });
      assert.equal(answer.choices[0].finish_reason, "stop");
      check(JSON.parse(answer.choices[0].message.content));
    }
  },

  async "a streamed answer is of its schema"() {
    const stream = await client.chat.completions.create({ ...asked, temperature: 1, seed: 7, stream: true });
    const { text, finish } = await readStream(stream);
    assert.equal(finish, "stop");
    check(JSON.parse(text));
  },

  async "the client's own parser reads answers"() {
    const answer = await client.chat.completions.parse({ ...asked, temperature: 1, seed: 5 });
    check(answer.choices[0].message.parsed);
  },

  async "what is no format is named"() {
    for (const [format, param] of [
      [{ type: "yaml" }, "response_format.type"],
      [{ type: "json_schema", json_schema: { name: "a b", schema: {} } }, "response_format.json_schema.name"],
    ]) {
      const error = await expectError(OpenAI.BadRequestError, 400, () =>
        client.chat.completions.create({ model, messages, response_format: format }),
      );
      assert.equal(error.param, param, JSON.stringify(error.error));
    }
  },
};
