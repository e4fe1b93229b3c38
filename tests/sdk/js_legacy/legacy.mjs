// An application of API 1.2, through autumn-js 0.1, whose url ends in /v1; the tutorial's plans are there.

import { Autumn } from "autumn-js";

const answers = {};
const client = new Autumn({
  secretKey: process.env.CREDITGATE_SECRET_KEY,
  url: `${process.env.CREDITGATE_URL}/v1`,
  logLevel: "fatal",
});

const ann = { customer_id: "ann" };
const premium = { ...ann, feature_id: "premium_messages" };

/** Remember the answer to a call under a name: its data, or its status and error. */
async function keep(name, call) {
  const { data, error, statusCode } = await call;
  answers[name] = error ? { status: statusCode, code: error.code } : data;
}

await keep("check", client.check({ ...premium, required_balance: 5, customer_data: { name: "Ann" } }));
await keep("track", client.track({ ...premium, value: 2 }));
await keep("track_among_properties", client.track({ ...premium, properties: { value: 3, model: "x" } }));
await keep("check_46_premium", client.check({ ...premium, required_balance: 46 }));
await keep("made_again", client.customers.create({ id: "ann", name: "Anna", email: "ann@example.com" }));
await keep("customer", client.customers.get("ann"));
await keep("usage", client.usage({ ...ann, feature_id: "usd_credits", value: 2 }));
await keep("check_after_usage", client.check(premium));
await keep("attach_pro", client.attach({ ...ann, product_id: "pro" }));
await keep("attach_free_again", client.attach({ ...ann, product_id: "free" }));
await keep("check_unknown_feature", client.check({ customer_id: "new", feature_id: "images" }));
await keep("get_unknown_customer", client.customers.get("new"));

console.log(JSON.stringify(answers));
