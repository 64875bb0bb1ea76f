// socket.io's client: long polling, WebSocket at once, and the upgrade from one to the other. Argument: URL.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { io } from 'socket.io-client';

const [url] = process.argv.slice(2);
for (const transports of [['polling'], ['websocket'], ['polling', 'websocket']]) {
  const socket = io(url, { transports, forceNew: true, reconnection: false });
  await once(socket, 'connect');
  if (transports.length === 2) await once(socket.io.engine, 'upgrade');
  const [text, transport] = await new Promise((done) => socket.emit('say', 'hello', (...all) => done(all)));
  assert.equal(text, 'hello');
  if (transports.length === 1) assert.equal(transport, transports[0]);
  socket.disconnect();
}
console.log('ok');
process.exit(0);
