// socket.io's client: long polling, WebSocket at once, and the upgrade from one to the other. Argument: URL.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { io } from 'socket.io-client';

const [url] = process.argv.slice(2);
for (const transports of [['polling'], ['websocket'], ['polling', 'websocket']]) {
  const socket = io(url, { transports, forceNew: true, reconnection: false });
  await once(socket, 'connect');
  // On a busy machine the upgrade may have come before the namespace was joined.
  const { engine } = socket.io;
  if (transports.length === 2 && engine.transport.name !== 'websocket') await once(engine, 'upgrade');
  const [text, transport] = await new Promise((done) => socket.emit('say', 'hello', (...all) => done(all)));
  assert.equal(text, 'hello');
  if (transports.length === 1) assert.equal(transport, transports[0]);
  socket.disconnect();
}
console.log('ok');
process.exit(0);
