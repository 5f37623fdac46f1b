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
        self.read += data
        answers = 0
        while (end := self.message_end()) is not None:
            self.read = self.read[end:]
            answers += 1
        self.transport.write(self.answer * answers)

    def message_end(self):
        """Where the first message ends, or None while it has not."""
        head = self.read.find(b"\r\n\r\n")
        if head < 0:
            return None
        fields, body = self.read[:head].lower(), head + 4
        if b"\r\ntransfer-encoding: chunked" in fields:
            last = self.read.find(b"\r\n0\r\n\r\n", body - 2)
            return None if last < 0 else last + 7
        length = fields.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
        end = body + int(length or 0)
        return end if len(self.read) >= end else None


async def main(names):
    loop = asyncio.get_running_loop()
    for name in names:
        server = await loop.create_server(lambda name=name: Backend(name), "127.0.0.1", 0, backlog=4096)
        host, port = server.sockets[0].getsockname()
        print(name, f"{host}:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main(sys.argv[1:]))
