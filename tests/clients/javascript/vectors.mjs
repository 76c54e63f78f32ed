// Stories of numbers: how likely tokens are, seeds, and vectors of texts.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { client, embeddingModel, expectError, messages, model } from "./asking.mjs";

const length = (vector) => Math.hypot(...vector);
const alike = (one, other) =>
  one.reduce((sum, value, place) => sum + value * other[place], 0) / length(one) / length(other);

export const stories = {
  async "each token has its probability"() {
    const asked = { model, messages, max_tokens: 20, temperature: 0, logprobs: true, top_logprobs: 4 };
    const answer = await client.chat.completions.create(asked);
    const { content } = answer.choices[0].logprobs;
    assert.equal(content.length, answer.usage.completion_tokens);
    for (const { token, logprob, bytes, top_logprobs: top } of content) {
      assert.equal(top.length, 4);
      assert.ok(logprob <= 0 && top.every((one) => one.logprob <= 0), JSON.stringify(top));
      assert.ok(top.reduce((sum, one) => sum + Math.exp(one.logprob), 0) < 1.001, JSON.stringify(top));
      // With temperature 0 the likeliest token is the one that is chosen.
      assert.deepEqual([top[0].token, top[0].logprob, top[0].bytes], [token, logprob, bytes]);
    }
    const spelt = Buffer.from(content.flatMap((one) => one.bytes)).toString();
    assert.ok(spelt.startsWith(answer.choices[0].message.content), spelt);
    const streamed = [];
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
      for (const choice of chunk.choices) streamed.push(...(choice.logprobs?.content ?? []));
    }
    assert.deepEqual(streamed, content);
  },

  async "completions tell theirs in the old way"() {
    const asked = { model, prompt: "To be, or", max_tokens: 8, temperature: 0, logprobs: 3 };
    const answer = await client.completions.create(asked);
    const told = answer.choices[0].logprobs;
    for (const list of [told.tokens, told.token_logprobs, told.top_logprobs, told.text_offset]) {
      assert.equal(list.length, answer.usage.completion_tokens);
    }
    told.tokens.forEach((token, place) => assert.equal(told.top_logprobs[place][token], told.token_logprobs[place]));
    assert.ok(told.tokens.join("").startsWith(answer.choices[0].text));
  },

  async "a seed decides the answer"() {
    const answer = async (seed) => {
      const { choices } = await client.chat.completions.create({
        model,
        messages,
        max_tokens: 24,
        temperature: 1,
        seed,
      });
      return choices[0].message.content;
    };
    const said = [];
    for (const seed of [0, 1, 2, 3]) {
      said.push(await answer(seed));
      assert.equal(await answer(seed), said[seed]);
    }
    assert.ok(new Set(said).size > 1, said.join("\n"));
  },

  async "texts become vectors in order"() {
    const input = ["O Romeo, Romeo! wherefore art thou Romeo?", "Once more unto the breach", "wherefore art thou Romeo"];
    // Without a wish the client asks for base64 and decodes it itself.
    const decoded = await client.embeddings.create({ model: embeddingModel, input });
    const numbers = await client.embeddings.create({ model: embeddingModel, input, encoding_format: "float" });
    assert.deepEqual(
      numbers.data.map((one) => one.index),
      [0, 1, 2],
    );
    numbers.data.forEach((one, place) => {
      const other = decoded.data[place].embedding;
      assert.equal(other.length, one.embedding.length);
      assert.ok(one.embedding.every((value, at) => Math.abs(value - other[at]) < 1e-6));
    });
    const [first, second, third] = numbers.data.map((one) => one.embedding);
    assert.ok(alike(first, third) > alike(first, second));
  },

  async "what no vector is made of is named"() {
    for (const [more, param] of [
      [{ input: [1, 2, 3] }, "input[0]"],
      [{ input: "To be", dimensions: 8 }, "dimensions"],
    ]) {
      const error = await expectError(OpenAI.BadRequestError, 400, () =>
        client.embeddings.create({ model: embeddingModel, ...more }),
      );
      assert.equal(error.param, param, JSON.stringify(error.error));
    }
  },
};
