// Vercel's AI SDK: a tool loop plain and streamed, a typed object plain and streamed. For Node and for a page.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

export async function use(url) {
  const provider = createOpenAICompatible({
    name: "pentad",
    baseURL: `${url}/v1`,
    apiKey: "unused",
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
  const model = provider("scripted");
  const add = tool({
    description: "Adds two numbers.",
    inputSchema: z.object({ a: z.number(), b: z.number() }),
    execute: async ({ a, b }) => a + b,
  });
  const ask = { model, prompt: "What is 1 and 2?", maxRetries: 0 };
  const looped = { ...ask, tools: { add }, stopWhen: stepCountIs(3) };
  const schema = z.object({ total: z.number(), words: z.array(z.string()) });

  const plain = await generateText(looped);
  const stream = streamText(looped);
  let streamed = "";
  for await (const piece of stream.textStream) streamed += piece;
  const usage = await stream.totalUsage;
  const object = await generateObject({ ...ask, schema });
  const partial = streamObject({ ...ask, schema });
  let parts = 0;
  for await (const _ of partial.partialObjectStream) parts += 1;
  return {
    plain: plain.text,
    steps: plain.steps.length,
    streamed,
    counted: usage.totalTokens > 0,
    object: object.object,
    streamedObject: await partial.object,
    parts,
  };
}
