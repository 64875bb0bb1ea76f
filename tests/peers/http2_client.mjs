// WebSockets over HTTP/2 by another library: nghttp2, as Node brings it, with `ws` for the frames.
// Arguments: URL of the gate, CA file, allowed origin, forbidden origin. Prints `ok`, or says what failed.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import http2 from 'node:http2';
import WebSocket from 'ws';

const [url, ca, allowed, forbidden] = process.argv.slice(2);
const session = http2.connect(url, { ca: readFileSync(ca) });
await once(session, 'remoteSettings');
assert.equal(session.remoteSettings.enableConnectProtocol, true);

function open(fields = {}) {
  return session.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/room', 'sec-websocket-version': '13', ...fields,
  });
}

async function websocket(fields) {
  const stream = open(fields);
  const [head] = await once(stream, 'response');
  assert.equal(head[':status'], 200);
  assert.equal(head['sec-websocket-accept'], undefined);
  const socket = new WebSocket(null, undefined, { closeTimeout: 10_000 });
  // What `ws` does itself once it has its 101; without an address it takes itself for a server, which does not mask.
  socket._isServer = false;
  socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 8 << 20, skipUTF8Validation: false, allowSynchronousEvents: true });
  return { stream, socket };
}

// Two on one connection, at the same time, with messages beyond every window.
const pair = await Promise.all([websocket(), websocket({ origin: allowed })]);
for (const size of [0, 1, 125, 126, 65535, 65536, 3 << 20]) {
  await Promise.all(pair.map(async ({ socket }) => {
    const message = randomBytes(size);
    socket.send(message);
    const [data] = await once(socket, 'message');
    assert.ok(message.equals(data), `binary of ${size}`);
  }));
}
for (const { socket, stream } of pair) {
  socket.close(4001, 'done');
  const [code, reason] = await once(socket, 'close');
  assert.deepEqual([code, String(reason)], [4001, 'done']);
  assert.equal(stream.rstCode, http2.constants.NGHTTP2_NO_ERROR);
}

async function status(stream) {
  const [head] = await once(stream, 'response');
  stream.resume();
  return head[':status'];
}
assert.equal(await status(open({ origin: forbidden })), 403);
assert.equal(await status(open({ 'sec-websocket-version': '12' })), 400);
assert.equal(await status(open({ ':protocol': 'connect-udp' })), 501);
// What the backend itself says to a plain request.
assert.equal(await status(session.request({ ':path': '/' })), 426);
console.log('ok');
process.exit(0);
