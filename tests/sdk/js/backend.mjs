// What a browser asks an application's backend, which asks the sidecar through autumn-js's handler.

import { startApp } from "./app.mjs";
import { pay } from "./browser.mjs";
import { createFeatures, createPlans } from "./catalog.mjs";
import { autumn, keep, tell } from "./script.mjs";

const client = autumn();
await createFeatures(client);
await createPlans(client);
const { server, url } = await startApp("rea");

async function ask(route, body) {
  const answer = await fetch(`${url}/api/autumn/${route}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: answer.status, body: await answer.json() };
}

keep("customer", await ask("getOrCreateCustomer", {}));
keep("plans", await ask("listPlans", {}));
await client.track({ customerId: "rea", featureId: "basic_messages", value: 2 });
keep("events", await ask("listEvents", {}));
keep("usage", await ask("aggregateEvents", { featureId: "basic_messages", range: "7d" }));
keep("unknown_plan", await ask("attach", { planId: "gold" }));

const successUrl = `${url}/thanks?plan=pro`;
const attached = keep("attach_pro", await ask("attach", { planId: "pro", successUrl }));
keep("paid", { wanted: successUrl, sent: await pay(attached.body.paymentUrl) });
keep("customer_after", await ask("getOrCreateCustomer", {}));

tell();
server.close();
