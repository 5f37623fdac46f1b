"""Backends that were not made here: one HTTP server per name, all in this process.

    backend.py one two three    prints `name address` for each, then serves until its stdin ends
"""

import asyncio
import sys


class Backend(asyncio.Protocol):
    """Answers every head with the backend's name, on a connection that it keeps."""

    def __init__(self, name):
        body = f"{name}\n".encode()
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
        self.read = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        *heads, self.read = (self.read + data).split(b"\r\n\r\n")
        self.transport.write(self.answer * len(heads))


async def main(names):
    loop = asyncio.get_running_loop()
    for name in names:
        server = await loop.create_server(lambda name=name: Backend(name), "127.0.0.1", 0, backlog=4096)
        host, port = server.sockets[0].getsockname()
        print(name, f"{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main(sys.argv[1:]))
