// What an application is told while Redis does not answer, through autumn-js, which fails open unless told not to.

import { autumn, keep, tell } from "./script.mjs";

const basic = { customerId: "ann", featureId: "basic_messages" };

const client = autumn();
keep("check", await client.check(basic));
keep("check_that_takes", await client.check({ ...basic, sendEvent: true }));
keep("track", await client.track({ ...basic, value: 1 }));

tell();
