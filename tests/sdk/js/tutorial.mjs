// The tutorial through autumn-js, from features to the second month.

import { pay } from "./browser.mjs";
import { createFeatures, createPlans } from "./catalog.mjs";
import { autumn, keep, tell } from "./script.mjs";

const john = { customerId: "john" };
const basic = { ...john, featureId: "basic_messages" };
const premium = { ...john, featureId: "premium_messages" };
const dayMs = 86_400_000;

const client = autumn();

await createFeatures(client);
keep("features", await client.features.list());
await createPlans(client);
keep("plans", await client.plans.list());

keep("created", await client.customers.getOrCreate({ ...john, name: "John Yeo", email: "john@example.com" }));

keep("check_5_basic", await client.check({ ...basic, requiredBalance: 5 }));
keep("check_500_basic", await client.check({ ...basic, requiredBalance: 500 }));
keep("check_501_basic", await client.check({ ...basic, requiredBalance: 501 }));
keep("check_again", await client.check({ ...basic, requiredBalance: 5 }));

keep("track_2_basic", await client.track({ ...basic, value: 2 }));
keep("track_2_premium", await client.track({ ...premium, value: 2 }));
keep("send_5_premium", await client.check({ ...premium, requiredBalance: 5, sendEvent: true }));
keep("send_43_premium", await client.check({ ...premium, requiredBalance: 43, sendEvent: true }));
keep("events", await client.events.list(john));

const pro = keep("attach_pro", await client.billing.attach({ ...john, planId: "pro" }));
keep("before_pro_is_paid", await client.customers.get(john));
await pay(pro.paymentUrl);
keep("after_pro_is_paid", await client.customers.get(john));

const topUp = keep(
  "attach_top_up",
  await client.billing.attach({
    ...john,
    planId: "top_up",
    featureQuantities: [{ featureId: "usd_credits", quantity: 20 }],
  }),
);
await pay(topUp.paymentUrl);
keep("after_top_up_is_paid", await client.customers.get(john));

keep("track_70_premium", await client.track({ ...premium, value: 70 }));
const tracked = keep("track_50_premium", await client.track({ ...premium, value: 50 }));
keep("check_181_premium", await client.check({ ...premium, requiredBalance: 181 }));

await client.customers.advanceTestClock({ ...john, frozenTime: tracked.balance.nextResetAt + dayMs });
keep("after_a_month", await client.customers.get(john));

tell();
