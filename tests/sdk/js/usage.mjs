// Usage sent in one batch, listed page by page and added up, through autumn-js.

import { createFeatures, createPlans } from "./catalog.mjs";
import { autumn, keep, refused, tell } from "./script.mjs";

const ann = { customerId: "ann" };
const items = [
  [1, "small"],
  [2, "large"],
  [3, "small"],
].map(([value, model]) => ({ ...ann, featureId: "basic_messages", value, properties: { model } }));

const client = autumn();
await createFeatures(client);
await createPlans(client);
await client.customers.getOrCreate(ann);

await refused("empty_batch", () => client.batchTrack([]));
await refused("bad_batch", () => client.batchTrack([...items, { ...ann, value: 9 }]));
keep("batch", await client.batchTrack([...items, { ...ann, featureId: "premium_messages" }]));
const deadline = Date.now() + 30_000;
while ((await client.events.list(ann)).list.length < 4 && Date.now() < deadline) {
  await new Promise((resume) => setTimeout(resume, 50));
}

const basic = { ...ann, featureId: "basic_messages" };
const first = keep("first_page", await client.events.list({ ...basic, limit: 2 }));
keep("last_page", await client.events.list({ ...basic, limit: 2, startCursor: first.nextCursor }));
keep("by_default", await client.events.aggregate(basic));
keep(
  "by_model",
  await client.events.aggregate({
    ...ann,
    featureId: ["basic_messages", "premium_messages"],
    range: "24h",
    binSize: "hour",
    groupBy: "properties.model",
    aggregateOn: "deducted",
  }),
);
keep("event", await client.track({ ...ann, eventName: "message.sent", value: 2 }));

tell();
