// What every script has: a client of the sidecar that the environment names, and a way to tell what it was answered.

import { Autumn } from "autumn-js";

export const serverURL = process.env.CREDITGATE_URL;
export const secretKey = process.env.CREDITGATE_SECRET_KEY;

const answers = {};

/** The official client; all that is ours is the base URL. */
export function autumn(options = {}) {
  return new Autumn({ serverURL, secretKey, ...options });
}

/** Remember the answer to a call under a name, and return it to be used. */
export function keep(name, answer) {
  answers[name] = inSnakeCase(answer);
  return answer;
}

/** Make a call that must throw, and remember what an application learns of the reason. */
export async function refused(name, call) {
  const error = await call().then(
    () => undefined,
    (reason) => reason,
  );
  if (error?.name !== "AutumnDefaultError") {
    throw new Error(`${name}: expected an AutumnDefaultError, not ${error}`);
  }
  keep(name, { status: error.statusCode, body: error.body });
}

/** Print what was remembered as the last line. */
export function tell() {
  console.log(JSON.stringify(answers));
}

/** The names that autumn-js gives to its users, as the other clients have them. */
function inSnakeCase(value) {
  if (Array.isArray(value)) {
    return value.map(inSnakeCase);
  }
  if (value === null || typeof value !== "object") {
    return value;
  }
  const renamed = Object.entries(value).map(([name, part]) => [
    name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
    inSnakeCase(part),
  ]);
  return Object.fromEntries(renamed);
}
