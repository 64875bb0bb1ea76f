// Node's `ws` as a client. Arguments: URL, allowed origin, forbidden origin. Prints `ok`, or says what failed.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import WebSocket from 'ws';

const [url, allowed, forbidden] = process.argv.slice(2);
for (const perMessageDeflate of [false, true]) {
  const socket = new WebSocket(url, ['chat', 'other'], { origin: allowed, perMessageDeflate });
  await once(socket, 'open');
  assert.equal(socket.protocol, 'chat');
  for (const size of [0, 1, 125, 126, 65535, 65536, 3 << 20]) {
    const message = randomBytes(size);
    socket.send(message);
    const [data, isBinary] = await once(socket, 'message');
    assert.ok(isBinary && message.equals(data), `binary of ${size}`);
  }
  socket.send('grüße');
  assert.equal(String((await once(socket, 'message'))[0]), 'grüße');
  socket.ping('p');
  assert.equal(String((await once(socket, 'pong'))[0]), 'p');
  socket.close(4001, 'done');
  const [code, reason] = await once(socket, 'close');
  assert.deepEqual([code, String(reason)], [4001, 'done']);
}
const refused = new WebSocket(url, { origin: forbidden });
const [, response] = await once(refused, 'unexpected-response');
assert.equal(response.statusCode, 403);
response.resume();
refused.on('error', () => {});
console.log('ok');
process.exit(0);
