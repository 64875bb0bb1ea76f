// Many clients by Node's `ws` that wait for their Close. Arguments: URL, count. Prints `open` when all are open, and when
// all are closed the code and the time (milliseconds since 1970) of each, as JSON.
import { once } from 'node:events';
import WebSocket from 'ws';

const [url, count] = process.argv.slice(2);
const closes = [];
const all = Array.from({ length: Number(count) }, (_, at) => at);
while (all.length > 0) {
  const wave = all.splice(0, 100).map(async () => {
    const socket = new WebSocket(url, { perMessageDeflate: false });
    socket.on('close', (code) => {
      closes.push([code, Date.now()]);
      if (closes.length === Number(count)) console.log(JSON.stringify(closes));
    });
    await once(socket, 'open');
  });
  await Promise.all(wave);
}
console.log('open');
