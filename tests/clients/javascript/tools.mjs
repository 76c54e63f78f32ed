// Stories of tools: what is offered, called, streamed, and answered.
//
// The model that a fresh market sells has never seen a tool. So what must be a call is one that fits the schema and says
// nothing sensible, and what may be a call is text as a rule.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { client, expectError, model } from "./asking.mjs";

const asked = [{ role: "user", content: "What weather has Verona?" }];

// As short as can be: all that is offered and said has to fit into 512 tokens of a small vocabulary.
const tool = (name, properties) => ({
  type: "function",
  function: {
    name,
    parameters: { type: "object", properties, required: Object.keys(properties), additionalProperties: false },
  },
});
const weather = tool("weather", {
  place: { enum: ["Verona", "Venice"] },
  days: { type: "integer", minimum: 1, maximum: 9 },
});
const wait = tool("wait", { patient: { type: "boolean" } });
const calling = { model, messages: asked, tools: [weather, wait], max_tokens: 100, temperature: 0 };

const fits = {
  weather: ({ place, days, ...more }) =>
    ["Verona", "Venice"].includes(place) &&
    Number.isInteger(days) &&
    days >= 1 &&
    days <= 9 &&
    Object.keys(more).length === 0,
  wait: ({ patient, ...more }) => typeof patient === "boolean" && Object.keys(more).length === 0,
};

/** The call is of a tool that is offered, with arguments of its schema. */
function checkCall(call) {
  assert.ok(call.id && call.type === "function", JSON.stringify(call));
  assert.ok(fits[call.function.name]?.(JSON.parse(call.function.arguments)), JSON.stringify(call));
}

function onlyCall(answer) {
  const [choice] = answer.choices;
  assert.equal(choice.finish_reason, "tool_calls", JSON.stringify(choice));
  assert.equal(choice.message.content, null);
  assert.equal(choice.message.tool_calls.length, 1);
  checkCall(choice.message.tool_calls[0]);
  return choice.message.tool_calls[0];
}

export const stories = {
  async "a required call is one of those offered"() {
    for (const seed of [0, 1, 2, 3]) {
      onlyCall(await client.chat.completions.create({ ...calling, tool_choice: "required", temperature: 1, seed }));
    }
  },

  async "a named call is of that tool"() {
    for (const name of Object.keys(fits)) {
      const tool_choice = { type: "function", function: { name } };
      const call = onlyCall(await client.chat.completions.create({ ...calling, tool_choice }));
      assert.equal(call.function.name, name);
    }
  },

  async "a model that may call may also talk"() {
    for (const more of [{}, { tool_choice: "auto" }, { parallel_tool_calls: false }]) {
      const { choices } = await client.chat.completions.create({ ...calling, ...more });
      const { message, finish_reason: finish } = choices[0];
      if (message.tool_calls) {
        assert.ok(["tool_calls", "length"].includes(finish), finish);
        message.tool_calls.forEach(checkCall);
      } else {
        assert.ok(message.content && ["stop", "length"].includes(finish), JSON.stringify(choices));
      }
    }
  },

  async "a streamed call is the same call"() {
    const whole = onlyCall(await client.chat.completions.create({ ...calling, tool_choice: "required" }));
    const stream = await client.chat.completions.create({ ...calling, tool_choice: "required", stream: true });
    const deltas = [];
    let finish = null;
    for await (const chunk of stream) {
      for (const choice of chunk.choices) {
        assert.ok(!choice.delta.content, JSON.stringify(choice));
        deltas.push(...(choice.delta.tool_calls ?? []));
        finish = choice.finish_reason ?? finish;
      }
    }
    assert.equal(finish, "tool_calls");
    const [first, ...rest] = deltas;
    assert.ok(first.id);
    const { name, arguments: text } = whole.function;
    assert.deepEqual(first, { index: 0, id: first.id, type: "function", function: { name, arguments: "" } });
    assert.ok(rest.length > 0);
    for (const one of rest) {
      assert.deepEqual(Object.keys(one).sort(), ["function", "index"]);
      assert.deepEqual(Object.keys(one.function), ["arguments"]);
    }
    assert.equal(rest.map((one) => one.function.arguments).join(""), text);
  },

  async "what a tool says goes back"() {
    const these = { ...calling, tools: [weather] };
    const first = await client.chat.completions.create({ ...these, tool_choice: "required" });
    const said = { role: "tool", tool_call_id: onlyCall(first).id, content: "rain" };
    const messages = [...asked, first.choices[0].message, said];
    const second = await client.chat.completions.create({ ...these, messages, max_tokens: 16 });
    const { message } = second.choices[0];
    assert.ok(message.content || message.tool_calls, JSON.stringify(second));
  },

  async "the client runs tools by itself"() {
    // The client calls the function and sends back what it says. A model that must call each time would call for ever,
    // so two rounds are all that the runner gets.
    const said = [];
    const tools = [
      {
        type: "function",
        function: {
          ...weather.function,
          parse: JSON.parse,
          function: (given) => {
            said.push(given);
            return "rain";
          },
        },
      },
    ];
    const runner = client.chat.completions.runTools(
      { ...calling, tools, tool_choice: { type: "function", function: { name: "weather" } } },
      { maxChatCompletions: 2 },
    );
    await runner.done().catch((error) => assert.ok(error instanceof OpenAI.OpenAIError, String(error)));
    assert.ok(said.length >= 1 && said.every(fits.weather), JSON.stringify(said));
  },

  async "what cannot be offered is named"() {
    for (const [more, param] of [
      [{ tools: [weather, { type: "function", function: { name: "a b" } }] }, "tools[1].function.name"],
      [{ tool_choice: { type: "function", function: { name: "fly" } } }, "tool_choice.function.name"],
      [{ response_format: { type: "json_object" } }, "response_format"],
    ]) {
      const error = await expectError(OpenAI.BadRequestError, 400, () =>
        client.chat.completions.create({ ...calling, ...more }),
      );
      assert.equal(error.param, param, JSON.stringify(error.error));
    }
  },
};
