// OpenAI's own client for Node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import {
  Email,
  FLAKY_URL,
  KEY,
  MODEL,
  NOBODY,
  TASK,
  TOO_LONG,
  TURNS,
  TURNS_TOKENS,
  URL,
  WRONG_KEY,
  followsTheSeed,
  run,
  stopsThere,
} from "./checks.mjs";

const client = new OpenAI({ baseURL: URL, apiKey: KEY });
const usual = { model: MODEL, messages: [{ role: "user", content: TASK }], max_tokens: 12, temperature: 0 };
const weather = { type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } };

async function text(options) {
  return (await client.chat.completions.create({ ...usual, ...options })).choices[0].message.content;
}

await run({
  async chat() {
    assert.ok(await text({}));
  },
  async stream() {
    let streamed = "";
    let usage;
    const options = { stream: true, stream_options: { include_usage: true } };
    for await (const chunk of await client.chat.completions.create({ ...usual, ...options })) {
      streamed += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(streamed, await text({}));
    assert.ok(usage.completion_tokens);
  },
  async tools() {
    await assert.rejects(text({ tools: [weather] }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.match(error.message, /tools/);
      return true;
    });
    return "400";
  },
  async json_schema() {
    const format = zodResponseFormat(Email, "email");
    const options = { response_format: format, max_tokens: 800, temperature: 1, seed: 1 };
    const answer = await client.chat.completions.parse({ ...usual, ...options });
    Email.parse(answer.choices[0].message.parsed);
  },
  async logprobs() {
    const answer = await client.chat.completions.create({ ...usual, logprobs: true, top_logprobs: 2 });
    const tokens = answer.choices[0].logprobs.content;
    assert.equal(tokens.length, answer.usage.completion_tokens);
    assert.ok(tokens.every((token) => token.logprob <= 0 && token.top_logprobs.length === 2));
  },
  async seed() {
    await followsTheSeed((seed) => text({ temperature: 1, seed }));
  },
  async stop() {
    await stopsThere((stop) => text({ stop }));
  },
  async turns() {
    const answer = await client.chat.completions.create({ ...usual, messages: TURNS });
    assert.equal(answer.usage.prompt_tokens, TURNS_TOKENS);
  },
  async errors() {
    await assert.rejects(text({ model: NOBODY }), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "model_not_found");
      assert.match(error.message, /nobody/);
      return true;
    });
    await assert.rejects(text({ messages: [{ role: "user", content: TOO_LONG }] }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, "context_length_exceeded");
      return true;
    });
    if (KEY !== "none") {
      await assert.rejects(new OpenAI({ baseURL: URL, apiKey: WRONG_KEY }).models.list(), (error) => {
        assert.ok(error instanceof OpenAI.AuthenticationError);
        assert.equal(error.code, "invalid_api_key");
        return true;
      });
    }
  },
  async retries() {
    const flaky = new OpenAI({ baseURL: FLAKY_URL, apiKey: KEY });
    assert.ok((await flaky.chat.completions.create(usual)).choices[0].message.content);
  },
  async responses() {
    const usual = { model: MODEL, input: TASK, max_output_tokens: 16, temperature: 0 };
    const answer = await client.responses.create(usual);
    assert.ok(answer.output_text);
    let text = "";
    let usage;
    for await (const event of await client.responses.create({ ...usual, stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
      usage = event.response?.usage ?? usage;
    }
    assert.equal(text, answer.output_text);
    assert.deepEqual(usage, answer.usage);
  },
  async completions() {
    const answer = await client.completions.create({ model: MODEL, prompt: TASK, max_tokens: 12, temperature: 0 });
    assert.ok(answer.choices[0].text);
    assert.ok(answer.usage.completion_tokens);
  },
});
