// Calls the gateway with common JavaScript clients, and prints the results as one JSON object.
// Usage: node clients.mjs BASE_URL
import OpenAI, { NotFoundError } from "openai";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";

const baseURL = process.argv[2];
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const provider = createOpenAICompatible({ name: "agents", baseURL, apiKey: "any", includeUsage: true });
const user = (content) => [{ role: "user", content }];
const seen = {};

seen.models = (await client.models.list()).data.map((model) => model.id);

const whole = await client.chat.completions.create({ model: "Plain", messages: user("say: one two three") });
seen.whole = { text: whole.choices[0].message.content, usage: whole.usage.total_tokens };

const stream = await client.chat.completions.create({
  model: "Plain", messages: user("say: one two three"), stream: true, stream_options: { include_usage: true },
});
seen.streamed = { text: "", usage: 0 };
for await (const chunk of stream) {
  seen.streamed.text += chunk.choices[0]?.delta?.content ?? "";
  seen.streamed.usage = chunk.usage?.total_tokens ?? seen.streamed.usage;
}

const helper = client.chat.completions.stream({ model: "Tools", messages: user('call add {"a": 2, "b": 3}') });
seen.tool = (await helper.finalChatCompletion()).choices[0].message;

try {
  await client.chat.completions.create({ model: "Nobody", messages: user("hi") });
} catch (error) {
  seen.unknown = { isNotFound: error instanceof NotFoundError, code: error.code };
}

try {
  const broken = await client.chat.completions.create({ model: "Plain", messages: user("rst 3"), stream: true });
  for await (const _ of broken);
} catch (error) {
  seen.broken = { message: error.message, type: error.type };
}

const endless = await client.chat.completions.create({ model: "Plain", messages: user("endless"), stream: true });
for await (const chunk of endless) if (chunk.choices[0]?.delta?.content) break; // exiting the loop aborts the request

const silent = await client.chat.completions.create({ model: "Plain", messages: user("slow 0.3 4"), stream: true });
seen.silent = "";
for await (const chunk of silent) seen.silent += chunk.choices[0]?.delta?.content ?? "";

const generated = await generateText({ model: provider("Plain"), prompt: "say: one two three" });
seen.aiWhole = { text: generated.text, usage: generated.usage.totalTokens };

const aiStream = streamText({ model: provider("Tools"), prompt: 'call add {"a": 2, "b": 3}' });
let aiText = "";
for await (const piece of aiStream.textStream) aiText += piece;
seen.aiStreamed = { text: aiText, calls: (await aiStream.toolCalls).length, finish: await aiStream.finishReason };

try {
  await generateText({ model: provider("Nobody"), prompt: "hi", maxRetries: 0 });
} catch (error) {
  seen.aiUnknown = error.statusCode;
}

// The AI SDK's own provider uses the Responses API, and refers to earlier items by their ids.
const responses = createOpenAI({ baseURL, apiKey: "any" });
const conversation = user('call add {"a": 2, "b": 3}');
const first = await generateText({ model: responses("Tools"), messages: conversation });
conversation.push(...first.response.messages, ...user("say: one two three"));
const second = streamText({ model: responses("Tools"), messages: conversation });
let secondText = "";
for await (const piece of second.textStream) secondText += piece;
conversation.push(...(await second.response).messages, ...user("say: and four"));
const third = await generateText({ model: responses("Tools"), messages: conversation });
seen.aiResponses = { texts: [first.text, secondText, third.text], calls: first.toolCalls.length, steps: first.steps.length };

// Tools of the client: the AI SDK executes each call, and sends the result.
const tools = {
  get_weather: tool({
    description: "The weather.",
    inputSchema: jsonSchema({ type: "object", properties: { city: { type: "string" } }, required: ["city"] }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const prompt = 'call add {"a": 2, "b": 3} call get_weather {"city": "Oslo"} then call get_weather {"city": "Rome"}';
seen.clientTools = [];
for (const model of [provider("Tools"), responses("Tools")]) {
  const ran = await generateText({ model, tools, prompt, stopWhen: stepCountIs(5) });
  const streamed = streamText({ model, tools, prompt, stopWhen: stepCountIs(5) });
  await streamed.consumeStream();
  seen.clientTools.push([ran.text, ran.steps.length], [await streamed.text, (await streamed.steps).length]);
}

const controller = new AbortController();
const cancelled = streamText({
  model: provider("Plain"), prompt: "endless", abortSignal: controller.signal, onError: () => {},
});
for await (const _ of cancelled.textStream) { controller.abort(); break; }

console.log(JSON.stringify(seen));
