// Node's HTTP/2 client, with `ws` for the frames of WebSockets. Arguments: URL, CA file, megabytes, messages.
// Bodies down and up, and down at 20 Mbit/s; WebSockets with messages of 4 KB and of 6 bytes, all on one connection.
// Prints `ok` and the figures, or what failed.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http2 from 'node:http2';
import { setTimeout as pause } from 'node:timers/promises';
import WebSocket from 'ws';

const [url, ca, megabytes, messages] = process.argv.slice(2);
const length = Number(megabytes) * 1_000_000;
const session = http2.connect(url, { ca: readFileSync(ca) });
session.on('goaway', (code) => { throw new Error(`GOAWAY ${code}`); });
await once(session, 'remoteSettings');

async function timed(what, work) {
  const begun = performance.now();
  await work(begun);
  process.stdout.write(`${what} ${((performance.now() - begun) / 1000).toFixed(1)} s, `);
}

async function down(size, begun, slow) {
  const stream = session.request({ ':path': `/bytes/${size}` });
  let count = 0;
  for await (const data of stream) {
    count += data.length;
    const ahead = begun + count / 2500 - performance.now();
    if (slow && ahead > 0) await pause(ahead);
  }
  assert.equal(count, size);
}

async function up() {
  const stream = session.request({ ':method': 'POST', ':path': '/count', 'content-length': length });
  const piece = Buffer.alloc(100_000);
  for (let sent = 0; sent < length; sent += piece.length) {
    if (!stream.write(piece)) await once(stream, 'drain');
  }
  stream.end();
  stream.setEncoding('utf8');
  let text = '';
  for await (const data of stream) text += data;
  assert.equal(text, String(length));
}

async function echo(size, count) {
  const stream = session.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/echo', 'sec-websocket-version': '13',
  });
  const [head] = await once(stream, 'response');
  assert.equal(head[':status'], 200);
  const socket = new WebSocket(null, undefined, { closeTimeout: 10_000 });
  // What `ws` does itself once it has its 101; without an address it takes itself for a server, which does not mask.
  socket._isServer = false;
  socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 1 << 20, skipUTF8Validation: false, allowSynchronousEvents: true });
  const message = Buffer.alloc(size);
  let sent = 0;
  let came = 0;
  const more = () => { while (sent < count && sent - came < 64) { socket.send(message); sent += 1; } };
  await new Promise((resolve, reject) => {
    socket.on('message', (data) => {
      assert.equal(data.length, size);
      came += 1;
      if (came === count) resolve(); else more();
    });
    socket.on('close', (code) => reject(new Error(`closed with ${code} after ${came} messages`)));
    socket.on('error', reject);
    more();
  });
  socket.removeAllListeners('close');
  socket.close(1000);
  await once(socket, 'close');
}

await timed('down', () => down(length));
await timed('slow', (begun) => down(length / 8, begun, true));
await timed('up', up);
await timed('4 KB messages', () => echo(4096, Math.floor(length / 4096)));
await timed('tiny messages', () => echo(6, Number(messages)));
console.log('ok');
process.exit(0);
