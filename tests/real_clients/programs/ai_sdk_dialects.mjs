// The AI SDK's providers for OpenAI, which speaks Responses, and for Anthropic: a tool loop and a typed object.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = `${process.argv[2]}/v1`;
const models = {
  responses: createOpenAI({ baseURL, apiKey: "unused" })("scripted"),
  anthropic: createAnthropic({ baseURL, apiKey: "unused" })("scripted"),
};
const add = tool({
  description: "Adds two numbers.",
  inputSchema: z.object({ a: z.number(), b: z.number() }),
  execute: async ({ a, b }) => a + b,
});
const schema = z.object({ total: z.number(), words: z.array(z.string()) });
globalThis.AI_SDK_LOG_WARNINGS = false;

const said = {};
for (const [name, model] of Object.entries(models)) {
  const ask = { model, prompt: "What is 1 and 2?", maxRetries: 0 };
  const looped = { ...ask, tools: { add }, stopWhen: stepCountIs(3) };
  const plain = await generateText(looped);
  let streamed = "";
  for await (const piece of streamText(looped).textStream) streamed += piece;
  const { object } = await generateObject({ ...ask, schema });
  said[name] = { plain: plain.text, steps: plain.steps.length, streamed, object };
}
console.log(JSON.stringify(said));
