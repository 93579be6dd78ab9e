// Conversations of MQTT.js with listeners that ask for a proof: `node mqttjs_access.mjs` reads what to do, one JSON object in
// a line, and answers each with a line of JSON that says how it went; whether that is right is judged elsewhere. $MQTTJS is the
// path of the module, which is installed outside the tree.

import { createHash, createHmac, pbkdf2Sync, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const mqtt = createRequire(import.meta.url)(process.env.MQTTJS);
const METHOD = "SCRAM-SHA-256";
const DEADLINE_MS = 30_000;

// Connects; `auth` answers an AUTH packet with a packet. The code of CONNACK, or "closed".
function connect({ url, files, ...options }, properties, auth) {
  const shown = Object.fromEntries(Object.entries(files).map(([name, path]) => [name, readFileSync(path)]));
  const client = mqtt.connect(url, { ...shown, ...options, properties, reconnectPeriod: 0 });
  if (auth) {
    client.handleAuth = (packet, callback) => callback(null, auth(packet.properties.authenticationData.toString()));
  }
  return new Promise((resolve) => {
    client.once("connect", (packet) => resolve({ code: 0, client, data: packet.properties?.authenticationData?.toString() }));
    client.on("error", (error) => resolve({ code: typeof error.code === "number" ? error.code : "closed" }));
    client.once("close", () => resolve({ code: "closed" }));
  });
}

const codeOf = (promise, good) => promise.then(good, (error) => error.packet?.granted?.[0] ?? error.code);

// The client's side of RFC 5802 with the hash of RFC 7677.
class Scram {
  constructor(user, secret, nonce = randomBytes(18).toString("base64")) {
    Object.assign(this, { secret, bare: `n=${user},r=${nonce}` });
  }

  properties = () => ({ authenticationMethod: METHOD, authenticationData: Buffer.from(`n,,${this.bare}`) });

  // The answer to the server's first message; remembers what the server has to sign.
  final(first) {
    const [nonce, salt, rounds] = first.split(",").map((part) => part.slice(2));
    const mac = (key, text) => createHmac("sha256", key).update(text).digest();
    const salted = pbkdf2Sync(this.secret, Buffer.from(salt, "base64"), Number(rounds), 32, "sha256");
    const withoutProof = `c=biws,r=${nonce}`;
    const signed = `${this.bare},${first},${withoutProof}`;
    const key = mac(salted, "Client Key");
    const signature = mac(createHash("sha256").update(key).digest(), signed);
    this.expected = mac(mac(salted, "Server Key"), signed);
    this.said = `${withoutProof},p=${Buffer.from(key.map((byte, at) => byte ^ signature[at])).toString("base64")}`;
    return this.said;
  }

  isSignedBy(data) {
    return data?.startsWith("v=") && timingSafeEqual(Buffer.from(data.slice(2), "base64"), this.expected);
  }
}

const packet = (data, method = METHOD) => ({
  cmd: "auth", reasonCode: 0x18, properties: { authenticationMethod: method, authenticationData: Buffer.from(data) },
});

const conversations = {
  // The reason of each acknowledgement, if it gets in.
  async enter({ publish = [], subscribe = [], ...options }) {
    const { code, client } = await connect(options);
    if (code !== 0) return { code };
    const said = { code, publish: [], subscribe: [] };
    for (const [topic, qos] of subscribe) {
      said.subscribe.push(await codeOf(client.subscribeAsync(topic, { qos }), (granted) => granted[0].qos));
    }
    for (const [topic, qos, payload, properties] of publish) {
      said.publish.push(await codeOf(client.publishAsync(topic, payload, { qos, properties }), (ack) => ack?.reasonCode ?? 0));
    }
    await client.endAsync();
    return said;
  },

  // Waits for the broker to end the connection; its reason, or "closed".
  async stay(options) {
    const { code, client } = await connect(options);
    if (code !== 0) return { code };
    const reason = await new Promise((resolve) => {
      client.once("disconnect", (packet) => resolve(packet.reasonCode));
      client.once("close", () => resolve("closed"));
    });
    return { code, reason };
  },

  async scram({ user, secret, ...options }) {
    const proof = new Scram(user, secret);
    const { code, client, data } = await connect(options, proof.properties(), (first) => packet(proof.final(first)));
    if (code !== 0) return { code };
    const own = await codeOf(client.publishAsync(`u/${user}/x`, "", { qos: 1 }), () => 0);
    const other = await codeOf(client.publishAsync("u/nobody/x", "", { qos: 1 }), () => 0);
    await client.endAsync();
    return { code, own, other, signed: proof.isSignedBy(data) };
  },

  // What was said once and led in is said again, with the same nonce of the client.
  async replay({ user, secret, ...options }) {
    const nonce = randomBytes(18).toString("base64");
    const proof = new Scram(user, secret, nonce);
    const first = await connect(options, proof.properties(), (first) => packet(proof.final(first)));
    await first.client?.endAsync();
    const again = await connect(options, new Scram(user, secret, nonce).properties(), () => packet(proof.said));
    return { code: again.code, first: first.code };
  },

  // The right answer in the wrong packet. (What is no AUTH, MQTT.js does not send before CONNACK.)
  async between({ user, secret, ...options }) {
    const proof = new Scram(user, secret);
    const instead = {
      method: (first) => packet(proof.final(first), "SCRAM-SHA-1"),
      reason: (first) => ({ ...packet(proof.final(first)), reasonCode: 0x19 }),
    };
    const codes = {};
    for (const [what, answer] of Object.entries(instead)) codes[what] = (await connect(options, proof.properties(), answer)).code;
    return codes;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { conversation, ...options } = JSON.parse(line);
  const deadline = setTimeout(() => {
    console.error(`no end of ${conversation} after ${DEADLINE_MS} ms`);
    process.exit(1);
  }, DEADLINE_MS);
  console.log(JSON.stringify(await conversations[conversation](options)));
  clearTimeout(deadline);
}
