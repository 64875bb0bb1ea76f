// A socket.io backend. Prints its port.
import { createServer } from 'node:http';
import { Server } from 'socket.io';

const http = createServer();
new Server(http).on('connection', (socket) => socket.on('say', (text, answer) => answer(text, socket.conn.transport.name)));
http.listen(0, '127.0.0.1', () => console.log(http.address().port));
