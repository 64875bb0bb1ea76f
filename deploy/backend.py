"""The backend of compose.yaml: echoes every message."""

import asyncio

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    async with serve(echo, "0.0.0.0", 9000) as server:
        await server.serve_forever()


asyncio.run(main())
