// Calls that the sidecar refuses, and a call that is made twice, through autumn-js.

import { HTTPClient } from "autumn-js";

import { pay } from "./browser.mjs";
import { createFeatures, createPlans } from "./catalog.mjs";
import { autumn, keep, refused, tell } from "./script.mjs";

const ann = { customerId: "ann" };
const basic = { ...ann, featureId: "basic_messages" };
const oneKey = { headers: { "Idempotency-Key": "message-1" } };

const client = autumn();
await createFeatures(client);
await createPlans(client);

await refused("check_unknown_customer", () => client.check(basic));
await refused("track_unknown_customer", () => client.track(basic));
await refused("get_unknown_customer", () => client.customers.get(ann));

await client.customers.getOrCreate(ann);
await refused("check_unknown_feature", () => client.check({ ...ann, featureId: "images" }));
await refused("track_unknown_feature", () => client.track({ ...ann, featureId: "images" }));
await refused("check_no_customer_id", () => client.check({ ...basic, customerId: "" }));
await refused("track_too_much", () => client.track({ ...basic, value: 1e13 }));
await refused("attach_unknown_plan", () => client.billing.attach({ ...ann, planId: "gold" }));
await refused("create_plan_twice", () => client.plans.create({ planId: "pro", name: "Pro" }));

await pay((await client.billing.attach({ ...ann, planId: "pro" })).paymentUrl);
await refused("attach_pro_twice", () => client.billing.attach({ ...ann, planId: "pro" }));

const stranger = autumn({ secretKey: "cg_sk_test_of_another_sidecar" });
await refused("check_wrong_key", () => stranger.check(basic));

const received = [];
const httpClient = new HTTPClient().addHook("response", (answer) => received.push(answer));
const watched = autumn({ httpClient, failOpen: false }); // where it may fail open, it takes its own httpClient
keep("track_once", await watched.track({ ...basic, value: 2 }, oneKey));
keep("track_again", await watched.track({ ...basic, value: 2 }, oneKey));
await refused("track_other_with_key", () => watched.track({ ...basic, value: 3 }, oneKey));
keep("replayed", received.map((answer) => answer.headers.get("Idempotent-Replayed")));
keep("events", await watched.events.list(ann));

tell();
