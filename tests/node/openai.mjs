// OpenAI's own client for JavaScript, unmodified but for base URL and key.
//
//     node openai.mjs BASE_URL KEY REVOKED_KEY
//
// Prints one JSON object: what each case found, under its name.

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, apiKey, revokedKey] = process.argv.slice(2);
const options = { baseURL, maxRetries: 0, timeout: 10_000 };
const client = new OpenAI({ ...options, apiKey });
const model = "gpt-4o";

const says = (content) => [{ role: "user", content }];
const hello = { model, messages: says("Hello") };
const weather = {
  type: "function",
  function: {
    name: "get_weather",
    parameters: { type: "object", properties: { city: { type: "string" } } },
  },
};
const clock = {
  type: "function",
  function: {
    name: "get_time",
    parameters: { type: "object", properties: { zone: { enum: ["UTC", "MSK"] } } },
  },
};

const create = (fields, asked = client) =>
  asked.chat.completions.create({ ...hello, ...fields });

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** What a rejected promise says, and as which of the client's classes. */
async function failure(work) {
  const heard = [];
  try {
    await work((chunk) => heard.push(chunk.choices[0].delta.content));
  } catch (error) {
    const { constructor, status, type, code, param, message } = error;
    const details = error.error?.details;
    return { class: constructor.name, status, type, code, param, message, details, heard };
  }
  return { class: null, heard };
}

const cases = {
  whole: () => create({}),

  async headers() {
    const { response, request_id } = await create({}).withResponse();
    return { provider: response.headers.get("x-manyways-provider"), requestId: request_id };
  },

  streamed: async () => all(await create({ stream: true })),

  usage: async () =>
    all(await create({ stream: true, stream_options: { include_usage: true } })),

  // The provider says its second word only when it has been asked to, in another request.
  async oneByOne() {
    const stream = await create({ messages: says("word by word"), stream: true });
    const words = [];
    for await (const chunk of stream) {
      words.push(chunk.choices[0].delta.content ?? chunk.choices[0].finish_reason);
      if (words.length === 1) await create({ messages: says("go on") });
    }
    return words;
  },

  async leaving() {
    const stream = await create({ messages: says("without end"), stream: true });
    for await (const chunk of stream) return chunk.choices[0].delta.content;
  },

  tools: () => create({ tools: [weather, clock] }),

  async toolsStreamed() {
    const runner = client.chat.completions.stream({ ...hello, tools: [weather, clock] });
    return runner.finalChatCompletion();
  },

  async structured() {
    const City = z.object({ name: z.string(), inhabitants: z.number() });
    const response_format = zodResponseFormat(City, "city");
    const answer = await client.chat.completions.parse({ ...hello, response_format });
    return answer.choices[0].message.parsed;
  },

  logprobs: () => create({ logprobs: true, top_logprobs: 1 }),

  unknown: () => create({ x_vendor_option: { deep: [1, { er: null }] } }),

  models: async () => (await client.models.list()).data,

  model: () => client.models.retrieve("gpt-4o"),

  wrongKey: () => failure(() => create({}, new OpenAI({ ...options, apiKey: "rvf_wrong" }))),

  revokedKey: () => failure(() => create({}, new OpenAI({ ...options, apiKey: revokedKey }))),

  noModel: () => failure(() => create({ model: "gpt-5o" })),

  badField: () => failure(() => create({ temperature: 3 })),

  overloaded: () => failure(() => create({ messages: says("overloaded") })),

  overloadedStream: () => failure(() => create({ messages: says("overloaded"), stream: true })),

  brokenStream: () =>
    failure(async (hear) => {
      const stream = await create({ messages: says("break off"), stream: true });
      for await (const chunk of stream) hear(chunk);
    }),
};

const found = {};
for (const [name, run] of Object.entries(cases)) {
  try {
    found[name] = await run();
  } catch (error) {
    found[name] = { unexpected: String(error.stack) };
  }
}
console.log(JSON.stringify(found));
