// Sends a request that fails after a tool has started, with the client's default retries. Exits with 0 if it failed.
// Usage: node retries.mjs BASE_URL WAY
import OpenAI from "openai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const baseURL = process.argv[2];
const client = new OpenAI({ baseURL, apiKey: "any" });
const compatible = createOpenAICompatible({ name: "agents", baseURL, apiKey: "any" });
const official = createOpenAI({ baseURL, apiKey: "any" });
const messages = [{ role: "user", content: "500" }];

async function drain(stream) {
  for await (const event of stream) if (event.type === "response.failed") throw new Error("failed");
}

async function streamed(model) {
  let failure;
  const result = streamText({ model, prompt: "500", onError: ({ error }) => { failure = error; } });
  await result.consumeStream();
  if (failure) throw failure;
}

const ways = {
  "openai chat": () => client.chat.completions.create({ model: "Shop", messages }),
  "openai chat streamed": async () =>
    drain(await client.chat.completions.create({ model: "Shop", messages, stream: true })),
  "openai responses": () => client.responses.create({ model: "Shop", input: "500" }),
  "openai responses streamed": async () =>
    drain(await client.responses.create({ model: "Shop", input: "500", stream: true })),
  "ai compatible": () => generateText({ model: compatible("Shop"), prompt: "500" }),
  "ai compatible streamed": () => streamed(compatible("Shop")),
  "ai openai": () => generateText({ model: official("Shop"), prompt: "500" }),
  "ai openai streamed": () => streamed(official("Shop")),
};
try {
  await ways[process.argv[3]]();
  process.exit(1);
} catch (error) {
  console.log(String(error));
}
