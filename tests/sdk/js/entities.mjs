// Seats of a customer through autumn-js: made, drawn on, limited, listed and deleted.

import { createFeatures, createPlans, createSeats, monthly } from "./catalog.mjs";
import { autumn, keep, refused, tell } from "./script.mjs";

const ann = { customerId: "ann" };
const one = { ...ann, entityId: "seat_1" };
const two = { ...ann, entityId: "seat_2" };
const messages = { featureId: "basic_messages" };
const limit = { featureId: "usd_credits", limit: 2, interval: "month", enabled: true };

const client = autumn();
await createFeatures(client);
await createPlans(client);
await createSeats(client);
const item = { featureId: "usd_credits", included: 3, reset: monthly };
await client.plans.create({ planId: "seat", name: "Seat", group: "seat", items: [item] });
await client.customers.getOrCreate(ann);

keep("made", await client.entities.create({ ...one, featureId: "seats", name: "Front desk" }));
await client.entities.create({ ...two, featureId: "seats" });
await refused("made_twice", () => client.entities.create({ ...one, featureId: "seats" }));
await client.billing.attach({ ...one, planId: "seat" });

keep("of_one", await client.check({ ...one, ...messages, requiredBalance: 800 }));
keep("of_two", await client.check({ ...two, ...messages, requiredBalance: 501 }));
keep("tracked", await client.track({ ...one, ...messages, value: 400 }));
const lock = { lockId: "call_1", enabled: true };
keep("locked", await client.check({ ...two, ...messages, requiredBalance: 100, lock }));
await client.balances.finalize({ lockId: "call_1", action: "confirm", overrideValue: 50 });
await refused("track_of_nobody", () => client.track({ ...ann, ...messages, entityId: "nobody" }));

keep("limited", await client.entities.update({ ...one, billingControls: { usageLimits: [limit] } }));
keep("within_the_limit", await client.check({ ...one, ...messages, requiredBalance: 200 }));
keep("beyond_the_limit", await client.check({ ...one, ...messages, requiredBalance: 201 }));

keep("got", await client.entities.get(one));
keep("first", await client.entities.list({ ...ann, limit: 1 }));
keep("found", await client.entities.list({ ...ann, search: "seat_2" }));
keep("customer", await client.customers.get({ ...ann, expand: ["entities"] }));
keep("events", await client.events.list(one));

keep("deleted", await client.entities.delete(one));
await refused("got_deleted", () => client.entities.get(one));
keep("left", await client.entities.list(ann));

tell();
