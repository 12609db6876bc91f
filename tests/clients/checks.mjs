// What the scripts of the Node clients share; checks.py is the same for Python and says what the arguments are.
import assert from "node:assert/strict";
import net from "node:net";
import { z } from "zod";

export const [URL, FLAKY_URL, KEY, MODEL, ...WANTED] = process.argv.slice(2);
export const TASK = "Thank Ada for the 12 chairs. I'm Kim.";
export const TURNS = [
  { role: "system", content: "Write email." },
  { role: "user", content: "Hello." },
  { role: "assistant", content: "Hi Ada," },
  { role: "user", content: "Shorter." },
];
// What the chat template of tests/tiny.py makes of TURNS.
export const TURNS_TOKENS =
  TURNS.reduce((sum, { role, content }) => sum + role.length + content.length + 4, 0) + "assistant".length + 2;
export const TOO_LONG = "chairs ".repeat(400);
export const NOBODY = "nobody";
export const WRONG_KEY = "wrong-key";

// Short enough that a random model ends it.
export const Email = z.object({ subject: z.string().max(60), body: z.string().max(120) });

// Every connection, fetch included, begins here.
const outside = [];
const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...given) {
  const { host, path } = net._normalizeArgs(Array.isArray(given[0]) ? given[0] : given)[0];
  if (!path && !["127.0.0.1", "localhost", "::1", undefined].includes(host)) {
    outside.push(host);
    throw new Error(`${host} is not this machine`);
  }
  return connect.apply(this, given);
};

// Run the wanted checks, or all; what a check returns stands in the table of docs/serving.md instead of `yes`.
export async function run(checks) {
  for (const check of WANTED.length ? WANTED : Object.keys(checks)) {
    if (check in checks) {
      const outcome = await checks[check]().then(
        (detail) => ({ ok: true, detail: detail ?? "" }),
        (error) => ({ ok: false, detail: `${error?.name}: ${error?.message}`.slice(0, 1000) }),
      );
      console.log(JSON.stringify({ check, ...outcome }));
    }
  }
  if (outside.length) {
    console.error(`it wanted to reach ${outside}`);
    process.exitCode = 1;
  }
}

// `write` writes another text with another seed only.
export async function followsTheSeed(write) {
  const text = await write(1);
  assert.equal(await write(1), text);
  assert.notEqual(await write(2), text);
}

// `write` writes a dozen greedy tokens, or what comes before the given text.
export async function stopsThere(write) {
  const whole = await write(undefined);
  const end = whole.slice(4, 6);
  assert.equal(await write([end]), whole.split(end)[0]);
}
