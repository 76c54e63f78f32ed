// Stories of models, chats, completions and errors.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import OpenAI from "openai";
import { client, expectError, messages, model, readStream } from "./asking.mjs";

export const stories = {
  async "models are listed"() {
    const found = new Map();
    for await (const one of client.models.list()) found.set(one.id, one);
    assert.ok(found.has(model), [...found.keys()].join(" "));
    assert.equal(found.get(model).object, "model");
    assert.ok(found.get(model).owned_by);
  },

  async "a model is retrieved"() {
    const one = await client.models.retrieve(model);
    assert.equal(one.id, model);
    assert.equal(one.object, "model");
  },

  async "chat answers"() {
    const { data: answer, response } = await client.chat.completions
      .create({ model, messages, max_tokens: 16 })
      .withResponse();
    assert.ok(response.headers.get("x-request-id"));
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.choices.length, 1);
    const [choice] = answer.choices;
    assert.equal(choice.message.role, "assistant");
    assert.ok(choice.message.content);
    assert.ok(["stop", "length"].includes(choice.finish_reason), choice.finish_reason);
    const { prompt_tokens: read, completion_tokens: written, total_tokens: total } = answer.usage;
    assert.ok(read > 0 && written > 0 && written <= 16, JSON.stringify(answer.usage));
    assert.equal(total, read + written);
  },

  async "a streamed chat is the same chat"() {
    // With temperature 0 the model says the same each time, so the stream can be held against the whole answer.
    const asked = { model, messages, max_tokens: 24, temperature: 0 };
    const whole = await client.chat.completions.create(asked);
    const stream = await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    });
    const { text, finish, usage } = await readStream(stream);
    assert.equal(text, whole.choices[0].message.content);
    assert.equal(finish, whole.choices[0].finish_reason);
    assert.equal(usage?.prompt_tokens, whole.usage.prompt_tokens);
    assert.equal(usage?.completion_tokens, whole.usage.completion_tokens);
  },

  async "usage comes only when asked for"() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 4, stream: true });
    const { text, finish, usage } = await readStream(stream);
    assert.ok(text);
    // Sampled without a seed: four tokens may be all that the model has to say.
    assert.ok(["length", "stop"].includes(finish), finish);
    assert.equal(usage, null);
  },

  async "a cancelled stream leaves the gateway well"() {
    const stream = await client.chat.completions.create({ model, messages, max_tokens: 200, stream: true });
    let count = 0;
    for await (const _ of stream) {
      count += 1;
      if (count === 3) {
        stream.controller.abort();
        break;
      }
    }
    assert.equal(count, 3, `the stream ended after ${count} chunks`);
    await stories["chat answers"]();
  },

  async "completions answer"() {
    const answer = await client.completions.create({ model, prompt: "To be, or", max_tokens: 8 });
    assert.equal(answer.object, "text_completion");
    assert.ok(answer.choices[0].text);
    assert.ok(answer.usage.completion_tokens > 0 && answer.usage.completion_tokens <= 8);
  },

  async "a streamed completion is the same completion"() {
    const asked = { model, prompt: "To be, or", max_tokens: 12, temperature: 0 };
    const whole = await client.completions.create(asked);
    let [text, chunks] = ["", 0];
    for await (const chunk of await client.completions.create({ ...asked, stream: true })) {
      chunks += 1;
      for (const choice of chunk.choices) text += choice.text;
    }
    assert.ok(chunks > 1, "a stream of one chunk streams nothing");
    assert.equal(text, whole.choices[0].text);
  },

  async "a bad key is refused"() {
    const stranger = new OpenAI({ apiKey: "sk-rialto-of-nobody", maxRetries: 0 });
    await expectError(OpenAI.AuthenticationError, 401, () => stranger.models.list());
  },

  async "an unknown model is not found"() {
    const error = await expectError(OpenAI.NotFoundError, 404, () =>
      client.chat.completions.create({ model: "rialto/nothing:v0", messages }),
    );
    assert.equal(error.code, "model_not_found");
    await expectError(OpenAI.NotFoundError, 404, () => client.models.retrieve("rialto/nothing:v0"));
  },

  async "a bad parameter is named"() {
    const wrong = { temperature: 9, max_tokens: 0, messages: [] };
    for (const [param, value] of Object.entries(wrong)) {
      const error = await expectError(OpenAI.BadRequestError, 400, () =>
        client.chat.completions.create({ model, messages, [param]: value }),
      );
      assert.equal(error.param, param, JSON.stringify(error.error));
    }
  },

  async "a repeated key is answered once"() {
    // The client retries POSTs: what carries the same key is the same request, and is charged once.
    const asked = { model, messages, max_tokens: 12, temperature: 1 };
    const options = { headers: { "Idempotency-Key": randomUUID() } };
    const first = await client.chat.completions.create(asked, options);
    const second = await client.chat.completions.create(asked, options);
    assert.equal(first.id, second.id);
    assert.equal(first.choices[0].message.content, second.choices[0].message.content);
  },
};
