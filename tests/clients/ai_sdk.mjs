// Vercel's AI SDK with its provider for servers like this one.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, Output, generateText, streamText, tool } from "ai";
import { z } from "zod";
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

function provider(options) {
  const usual = { name: "mailwright", baseURL: URL, apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true };
  return createOpenAICompatible({ ...usual, ...options });
}

const usual = { model: provider().chatModel(MODEL), prompt: TASK, maxOutputTokens: 12, temperature: 0 };

async function text(options) {
  return (await generateText({ ...usual, ...options })).text;
}

function refusal(status, ...words) {
  return (error) => {
    assert.ok(APICallError.isInstance(error));
    assert.equal(error.statusCode, status);
    for (const word of words) assert.ok(`${error.message} ${error.responseBody}`.includes(word), word);
    return true;
  };
}

await run({
  async chat() {
    assert.ok(await text({}));
  },
  async stream() {
    const answer = streamText(usual);
    let streamed = "";
    for await (const part of answer.textStream) streamed += part;
    assert.equal(streamed, await text({}));
    assert.ok((await answer.usage).outputTokens);
  },
  async tools() {
    const weather = tool({ description: "The weather.", inputSchema: z.object({ city: z.string() }) });
    await assert.rejects(text({ tools: { weather } }), refusal(400, "tools"));
    return "400";
  },
  async json_schema() {
    const options = { output: Output.object({ schema: Email }), maxOutputTokens: 800, temperature: 1, seed: 1 };
    Email.parse((await generateText({ ...usual, ...options })).output);
  },
  async seed() {
    await followsTheSeed((seed) => text({ temperature: 1, seed }));
  },
  async stop() {
    await stopsThere((stopSequences) => text({ stopSequences }));
  },
  async turns() {
    const [{ content: system }, ...messages] = TURNS;
    const answer = await generateText({ model: usual.model, system, messages, maxOutputTokens: 12 });
    assert.equal(answer.usage.inputTokens, TURNS_TOKENS);
  },
  async errors() {
    await assert.rejects(text({ model: provider().chatModel(NOBODY) }), refusal(404, NOBODY, "model_not_found"));
    await assert.rejects(text({ prompt: TOO_LONG }), refusal(400, "context_length_exceeded"));
    if (KEY !== "none") {
      const stranger = provider({ apiKey: WRONG_KEY }).chatModel(MODEL);
      await assert.rejects(text({ model: stranger }), refusal(401, "invalid_api_key"));
    }
  },
  async retries() {
    assert.ok(await text({ model: provider({ baseURL: FLAKY_URL }).chatModel(MODEL) }));
  },
  async completions() {
    const answer = await generateText({ ...usual, model: provider().completionModel(MODEL) });
    assert.ok(answer.text);
    assert.ok(answer.usage.outputTokens);
  },
});
