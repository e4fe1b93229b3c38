// What a customer's browser does with a paymentUrl: opens the page and, when they press Pay, posts its form.

import { JSDOM } from "jsdom";

/** Return where the browser is sent once it has paid. */
export async function pay(paymentUrl) {
  const { window } = await JSDOM.fromURL(paymentUrl);
  const form = window.document.querySelector("form");
  const paid = await fetch(form.action, {
    method: form.method,
    body: new URLSearchParams([...new window.FormData(form)]),
    headers: { Origin: window.location.origin, "Sec-Fetch-Site": "same-origin" },
    redirect: "manual",
  });
  if (paid.status !== 303) {
    throw new Error(`paying was answered ${paid.status}: ${await paid.text()}`);
  }
  return paid.headers.get("location");
}
