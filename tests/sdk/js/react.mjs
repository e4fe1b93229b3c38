// A page with autumn-js's React hook, under jsdom, against an application's backend.

import { AutumnProvider, useCustomer } from "autumn-js/react";
import { JSDOM, VirtualConsole } from "jsdom";
import { createElement, useEffect } from "react";

import { startApp } from "./app.mjs";
import { pay } from "./browser.mjs";
import { createFeatures, createPlans } from "./catalog.mjs";
import { autumn, keep, tell } from "./script.mjs";

const client = autumn();
await createFeatures(client);
await createPlans(client);
const { url } = await startApp("rea");

// Without a console: jsdom would report there that it does not follow the link to the checkout.
const { window } = new JSDOM("<main></main>", { url, virtualConsole: new VirtualConsole() });
for (const name of ["window", "document", "navigator"]) {
  Object.defineProperty(globalThis, name, { value: window[name], configurable: true });
}
const { createRoot } = await import("react-dom/client"); // looks for a window as it is loaded

let rendered; // the hook's result of the latest rendering
function Page() {
  const hook = useCustomer();
  useEffect(() => {
    rendered = hook;
  });
  return null;
}

createRoot(document.querySelector("main")).render(
  createElement(AutumnProvider, { backendUrl: url }, createElement(Page)),
);

/** Wait until the hook has what is looked for. */
async function until(condition) {
  const deadline = Date.now() + 20_000;
  while (!(rendered && condition(rendered))) {
    if (rendered?.error || Date.now() > deadline) {
      throw new Error("the hook did not come to it", { cause: rendered?.error });
    }
    await new Promise((resume) => setTimeout(resume, 10));
  }
  return rendered;
}

function check(featureId, requiredBalance) {
  return rendered.check({ featureId, requiredBalance });
}

await until((hook) => hook.data);
keep("customer", rendered.data);
keep("check_500_basic", check("basic_messages", 500));
keep("check_501_basic", check("basic_messages", 501));
keep("check_50_premium", check("premium_messages", 50));
keep("check_51_premium", check("premium_messages", 51));

const attached = keep("attach_pro", await rendered.attach({ planId: "pro" }));
await pay(attached.paymentUrl);
await rendered.refetch();
await until((hook) => hook.data.subscriptions[0].planId === "pro");
keep("check_1000_basic_on_pro", check("basic_messages", 1000));
keep("check_1001_basic_on_pro", check("basic_messages", 1001));

tell();
process.exit(); // the hook's cache has timers that would keep the program for minutes
