// The rival Nodemailer, as its manual advises for many messages: pool: true, prepared bytes by `raw`.
// The same requests and answers as sender.py.
"use strict";

const readline = require("node:readline");
const nodemailer = require("nodemailer");

const lines = readline.createInterface({ input: process.stdin });
const answer = (value) => process.stdout.write(JSON.stringify(value) + "\n");
let transport;
let mail;

function open(task) {
  transport = nodemailer.createTransport({
    pool: true,
    maxConnections: task.connections,
    maxMessages: Infinity,
    host: task.host,
    port: task.port,
    secure: false,
    ignoreTLS: true,
    name: "client.example",
  });
  mail = {
    envelope: { from: task.sender, to: task.recipients },
    raw: Buffer.from(task.message, "base64"),
  };
}

async function send(count) {
  const limit = Math.min(count, 1000);
  let left = count;
  const caller = async () => {
    while (left-- > 0) {
      const info = await transport.sendMail(mail);
      if (info.rejected.length) throw new Error(info.response);
    }
  };
  await Promise.all(Array.from({ length: limit }, caller));
}

async function timed(count) {
  const before = process.cpuUsage();
  const start = process.hrtime.bigint();
  await send(count);
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const cpu = process.cpuUsage(before);
  return { seconds, user: cpu.user / 1e6, system: cpu.system / 1e6 };
}

(async () => {
  for await (const line of lines) {
    const request = JSON.parse(line);
    if (request.count) {
      answer(await timed(request.count));
    } else {
      open(request);
      await send(request.connections);
      answer({ ready: true });
    }
  }
  transport.close();
})();
