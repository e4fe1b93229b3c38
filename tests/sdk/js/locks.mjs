// Locks through autumn-js: held by a check, ended in every way.

import { createFeatures, createPlans } from "./catalog.mjs";
import { autumn, keep, refused, tell } from "./script.mjs";

const ann = { customerId: "ann" };
const basic = { ...ann, featureId: "basic_messages" };
const dayMs = 86_400_000;

const client = autumn();
await createFeatures(client);
await createPlans(client);
await client.customers.getOrCreate(ann);

const hold = (lockId, units, lock = {}) =>
  client.check({ ...basic, requiredBalance: units, lock: { lockId, enabled: true, ...lock } });

const expiresAt = Date.now() + 600_000;
keep("held", await hold("one", 100, { expiresAt }));
await refused("held_again", () => hold("one", 1));
keep("denied", await hold("two", 1000));
keep("confirmed", await client.balances.finalize({ lockId: "one", action: "confirm", overrideValue: 30 }));
await refused("confirmed_again", () => client.balances.finalize({ lockId: "one", action: "confirm" }));
keep("after_confirm", await client.customers.get(ann));

await hold("two", 200);
keep("released", await client.balances.finalize({ lockId: "two", action: "release" }));
keep("after_release", await client.customers.get(ann));

await refused("too_far", () => hold("far", 1, { expiresAt: expiresAt + dayMs }));
await refused("unknown", () => client.balances.finalize({ lockId: "unknown", action: "release" }));
keep("events", await client.events.list(ann));

tell();
