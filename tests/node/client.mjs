// The npm client against a Headrace: `node client.mjs SCENARIO` prints what it got as one line of JSON.
// HEADRACE_BASE_URL and HEADRACE_API_KEY say where; each scenario is one function below.

import OpenAI from "openai";

const client = new OpenAI({
  baseURL: process.env.HEADRACE_BASE_URL,
  apiKey: process.env.HEADRACE_API_KEY,
  maxRetries: 0,
});
const HELLO = [{ role: "user", content: "Say hello" }];

const scenarios = {
  async whole() {
    const { data, request_id } = await client.chat.completions
      .create({ model: "lab/scripted", messages: HELLO })
      .withResponse();
    return { text: data.choices[0].message.content, model: data.model, run: request_id };
  },

  async stream() {
    const pieces = [];
    let usage = null;
    const stream = await client.chat.completions.create({
      model: "lab/scripted",
      messages: HELLO,
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      if (chunk.choices.length) pieces.push(chunk.choices[0].delta.content ?? "");
      usage = chunk.usage ?? usage;
    }
    return { text: pieces.join(""), usage };
  },

  async completion() {
    const whole = await client.completions.create({ model: "mock", prompt: "Count", max_tokens: 3 });
    let pieces = 0;
    const stream = await client.completions.create({ model: "mock", prompt: "Count", max_tokens: 3, stream: true });
    for await (const chunk of stream) pieces += chunk.choices[0]?.text ? 1 : 0;
    return { text: whole.choices[0].text, usage: whole.usage, pieces };
  },

  async embeddings() {
    const input = ["abc", "water"];
    const packed = await client.embeddings.create({ model: "mock", input });
    const plain = await client.embeddings.create({ model: "mock", input, encoding_format: "float" });
    return { packed: packed.data.map((row) => row.embedding), plain: plain.data.map((row) => row.embedding) };
  },

  async moderation() {
    const answer = await client.moderations.create({ input: ["calm water", "my card is 4111 1111 1111 1111"] });
    return { flagged: answer.results.map((one) => one.flagged), card: answer.results[1].categories.card };
  },

  async models() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    return names;
  },

  async failure() {
    const caught = await client.chat.completions
      .create({ model: "nobody", messages: HELLO })
      .then(() => null, (error) => error);
    const right = caught instanceof OpenAI.NotFoundError;
    return { right, status: caught.status, code: caught.code, param: caught.param, run: caught.requestID };
  },

  async broken() {
    const got = [];
    try {
      const stream = await client.chat.completions.create({ model: "lab/scripted", messages: HELLO, stream: true });
      for await (const chunk of stream) got.push(chunk.choices[0].delta.content);
      return { got, code: "" };
    } catch (error) {
      return { got, code: error.code };
    }
  },

  async once() {
    const ask = (content) =>
      client.chat.completions
        .create(
          { model: "lab/scripted", messages: [{ role: "user", content }] },
          { headers: { "Idempotency-Key": "from node" } },
        )
        .withResponse();
    const first = await ask("Say hello");
    const again = await ask("Say hello");
    const other = await ask("Say something else").then(() => null, (error) => error);
    return {
      texts: [first, again].map(({ data }) => data.choices[0].message.content),
      runs: [first, again].map(({ request_id }) => request_id),
      replayed: again.response.headers.get("idempotent-replayed"),
      other: [other.status, other.code],
    };
  },

  async responses() {
    const stream = client.responses.stream({ model: "lab/scripted", input: "count" });
    const numbers = [];
    for await (const event of stream) numbers.push(event.sequence_number);
    const final = await stream.finalResponse();
    const rest = await client.responses.retrieve(final.id, { stream: true, starting_after: 3 });
    const again = [];
    for await (const event of rest) again.push(event.sequence_number);
    const whole = client.responses.stream({ response_id: final.id, starting_after: 5 });
    const helped = [];
    for await (const event of whole) helped.push(event.sequence_number);
    const next = await client.responses.create({
      model: "lab/scripted",
      input: "and on",
      previous_response_id: final.id,
    });
    const asked = [];
    for await (const item of client.responses.inputItems.list(next.id, { order: "asc" })) asked.push(item.role);
    const queued = await client.responses.create({ model: "lab/scripted", input: "go on", background: true });
    const cancelled = await client.responses.cancel(queued.id);
    await client.responses.delete(next.id);
    const gone = await client.responses.retrieve(next.id).then(() => 200, (error) => error.status);
    return {
      numbers,
      again,
      helped,
      texts: [final.output_text, next.output_text],
      asked,
      statuses: [queued.status, cancelled.status],
      gone,
    };
  },

  async abort() {
    const messages = [{ role: "user", content: "@@slow tell me everything" }];
    const stream = await client.chat.completions.create({ model: "mock", messages, stream: true, max_tokens: 500 });
    let seen = 0;
    for await (const chunk of stream) {
      seen += chunk.choices.length;
      stream.controller.abort();
    }
    return { seen };
  },
};

console.log(JSON.stringify(await scenarios[process.argv[2]]()));
