// The tutorial's features and plans, created through autumn-js.

export const monthly = { interval: "month" };

export async function createFeatures(client) {
  for (const name of ["Basic Messages", "Premium Messages"]) {
    const featureId = name.toLowerCase().replace(" ", "_");
    const eventNames = ["message.sent"];
    await client.features.create({ featureId, name, type: "metered", consumable: true, eventNames });
  }
  await client.features.create({
    featureId: "usd_credits",
    name: "USD Credits",
    type: "credit_system",
    creditSchema: [
      { meteredFeatureId: "basic_messages", creditCost: 0.01 },
      { meteredFeatureId: "premium_messages", creditCost: 0.1 },
    ],
  });
}

export async function createSeats(client) {
  await client.features.create({ featureId: "seats", name: "Seats", type: "metered", consumable: false });
}

export async function createPlans(client) {
  await client.plans.create({
    planId: "free",
    name: "Free",
    autoEnable: true,
    items: [{ featureId: "usd_credits", included: 5, reset: monthly }],
  });
  await client.plans.create({
    planId: "pro",
    name: "Pro",
    price: { amount: 10, interval: "month" },
    items: [{ featureId: "usd_credits", included: 10, reset: monthly }],
  });
  await client.plans.create({
    planId: "top_up",
    name: "Top Up",
    addOn: true,
    items: [
      {
        featureId: "usd_credits",
        price: { amount: 1, interval: "one_off", billingUnits: 1, billingMethod: "prepaid" },
      },
    ],
  });
}
