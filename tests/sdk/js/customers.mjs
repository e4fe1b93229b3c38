// Customers listed page by page, changed, cancelled and deleted through autumn-js.

import { pay } from "./browser.mjs";
import { createFeatures, createPlans } from "./catalog.mjs";
import { autumn, keep, refused, tell } from "./script.mjs";

const ann = { customerId: "ann" };

const client = autumn();
await createFeatures(client);
await createPlans(client);
for (let number = 0; number < 5; number++) {
  await client.customers.getOrCreate({ customerId: `user_${number}`, name: `Number ${number}` });
}
await client.track({ customerId: "user_3", featureId: "basic_messages", value: 2 });

const pages = [];
let startCursor = "";
do {
  pages.push(await client.customers.list({ limit: 2, startCursor }));
  startCursor = pages.at(-1).nextCursor;
} while (startCursor);
keep("pages", pages);
keep("searched", await client.customers.list({ search: "number 4" }));
keep("oldest", await client.customers.list({ limit: 1, sortOrder: "asc" }));

await client.customers.getOrCreate({ ...ann, name: "Ann", metadata: { team: "red", size: 3 } });
keep("updated", await client.customers.update({ ...ann, name: "Anna", metadata: { team: "blue", size: null } }));
keep("emptied", await client.customers.update({ ...ann, name: null }));

keep("preview", await client.billing.previewAttach({ ...ann, planId: "pro" }));
await pay((await client.billing.attach({ ...ann, planId: "pro" })).paymentUrl);
keep("on_pro", await client.customers.list({ plans: [{ id: "pro" }] }));
const pro = { ...ann, planId: "pro" };
keep("cancelling", await client.billing.update({ ...pro, cancelAction: "cancel_end_of_cycle" }));
keep("cancelled", await client.customers.get(ann));
await client.billing.update({ ...pro, cancelAction: "uncancel" });
keep("uncancelled", await client.customers.get(ann));
await client.billing.update({ ...pro, cancelAction: "cancel_immediately" });
keep("ended", await client.customers.get(ann));
await refused("cancel_what_is_gone", () => client.billing.update({ ...pro, cancelAction: "cancel_immediately" }));

const topUp = { planId: "top_up", featureQuantities: [{ featureId: "usd_credits", quantity: 20 }] };
const several = keep("several", await client.billing.multiAttach({ ...ann, plans: [{ planId: "pro" }, topUp] }));
await pay(several.paymentUrl);
keep("on_several", await client.customers.get(ann));

keep("deleted", await client.customers.delete(ann));
await refused("get_deleted", () => client.customers.get(ann));
await refused("delete_twice", () => client.customers.delete(ann));
keep("made_again", await client.customers.getOrCreate(ann));
keep("in_the_end", await client.customers.list({}));

tell();
