// One scenario with MQTT.js: `node mqttjs.mjs NAME PORT VERSION`; exit code 0 if all was as it should be.
// $MQTTJS is the path of the module, which is installed outside the tree.

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const mqtt = createRequire(import.meta.url)(process.env.MQTTJS);
const [name, port, version] = process.argv.slice(2);
const read = (name) => process.env[name] && readFileSync(process.env[name]);
const shown = { ca: read("AUTHORITY"), cert: read("CERTIFICATE"), key: read("KEY") };
const protocolVersion = Number(version);
const deadline = setTimeout(() => {
  console.error("no end after 30 s");
  process.exit(1);
}, 30_000);

async function connect(clientId, durable = false, given = {}) {
  const properties =
    protocolVersion === 5 ? { sessionExpiryInterval: durable ? 300 : 0, ...given } : undefined;
  const client = mqtt.connect(`${process.env.SCHEME}://127.0.0.1:${port}`, {
    ...shown, clientId, protocolVersion, properties, clean: !durable, reconnectPeriod: 0,
  });
  client.got = [];
  client.on("message", (topic, payload, packet) => client.got.push({ topic, payload: payload.toString(), packet }));
  const [connack] = await once(client, "connect");
  client.sessionPresent = connack.sessionPresent;
  return client;
}

async function arrived(client, count) {
  while (client.got.length < count) await once(client, "message");
  return client.got;
}

const scenarios = {
  async echo() {
    const client = await connect(`js-echo-${version}`);
    await client.subscribeAsync(`js/echo/${version}/#`, { qos: 2 });
    const wanted = [];
    for (const qos of [0, 1, 2]) {
      for (let number = 0; number < 50; number += 1) {
        wanted.push([`js/echo/${version}/${qos}`, String(number), qos]);
        await client.publishAsync(`js/echo/${version}/${qos}`, String(number), { qos });
      }
    }
    const got = await arrived(client, wanted.length);
    assert.deepEqual(got.map((message) => [message.topic, message.payload, message.packet.qos]), wanted);
    await client.endAsync();
  },

  async leave() {
    const reader = await connect(`js-queue-${version}`, true);
    await reader.subscribeAsync(`js/queue/${version}`, { qos: 2 });
    await reader.endAsync();
    const writer = await connect(`js-queue-writer-${version}`);
    for (let number = 0; number < 100; number += 1) {
      await writer.publishAsync(`js/queue/${version}`, String(number), { qos: number < 50 ? 1 : 2 });
    }
    await writer.endAsync();
  },

  async find() {
    const reader = await connect(`js-queue-${version}`, true);
    assert.equal(reader.sessionPresent, true);
    const got = await arrived(reader, 100);
    assert.deepEqual(got.map((message) => Number(message.payload)), [...Array(100).keys()]);
    await reader.endAsync();
  },

  async aliases() {
    const reader = await connect("js-alias-reader", false, { topicAliasMaximum: 16 });
    await reader.subscribeAsync("js/alias/#", { qos: 2 });
    const writer = await connect("js-alias-writer");
    const properties = { topicAlias: 3, userProperties: { from: "js" }, contentType: "text/plain" };
    await writer.publishAsync("js/alias/long/topic", "first", { qos: 1, properties });
    for (const [payload, qos] of [["second", 1], ["third", 0], ["fourth", 2]]) {
      await writer.publishAsync("", payload, { qos, properties });
    }
    const got = await arrived(reader, 4);
    assert.deepEqual(got.map((message) => message.payload), ["first", "second", "third", "fourth"]);
    // At QoS 2, MQTT.js hands on the topic of the packet, which is empty beside an alias; at the others it looks it up.
    assert.deepEqual(got.slice(0, 3).map((message) => message.topic), Array(3).fill("js/alias/long/topic"));
    assert.deepEqual(got.map((message) => message.packet.topic), ["js/alias/long/topic", "", "", ""]);
    for (const { packet } of got) {
      assert.equal(packet.properties.topicAlias, got[0].packet.properties.topicAlias);
      assert.equal(packet.properties.userProperties.from, "js");
      assert.equal(packet.properties.contentType, "text/plain");
    }
    assert.ok(got[0].packet.properties.topicAlias >= 1 && got[0].packet.properties.topicAlias <= 16);
    await writer.endAsync();
    await reader.endAsync();
  },

  async takeover() {
    const first = await connect("js-takeover", true);
    await first.subscribeAsync("js/takeover", { qos: 1 });
    const told = once(first, "disconnect");
    const second = await connect("js-takeover", true);
    assert.equal(second.sessionPresent, true);
    const [packet] = await told;
    assert.equal(packet.reasonCode, 0x8e);
    await second.publishAsync("js/takeover", "to the second", { qos: 1 });
    assert.equal((await arrived(second, 1))[0].payload, "to the second");
    assert.equal(first.got.length, 0);
    await second.endAsync();
  },
};

await scenarios[name]();
clearTimeout(deadline);
