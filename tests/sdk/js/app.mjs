// An application's backend: Node's own server, with the routes that autumn-js gives to React.

import { once } from "node:events";
import { createServer } from "node:http";

import { autumnHandler } from "autumn-js/fetch";

import { secretKey, serverURL } from "./script.mjs";

/** Start it on a free port, with one customer signed in; returns the server and where it answers. */
export async function startApp(customerId) {
  const handler = autumnHandler({
    autumnURL: serverURL,
    secretKey,
    identify: () => ({ customerId, customerData: { name: "Rea", email: "rea@example.com" } }),
  });
  const server = createServer(async (incoming, outgoing) => {
    const body = Buffer.concat(await incoming.toArray());
    const { method, url } = incoming;
    const request = new Request(`http://${incoming.headers.host}${url}`, {
      method,
      body: method === "POST" ? body : undefined,
    });
    const answer = await handler(request);
    outgoing.writeHead(answer.status, Object.fromEntries(answer.headers));
    outgoing.end(await answer.text());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, url: `http://127.0.0.1:${server.address().port}` };
}
