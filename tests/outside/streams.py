"""Python's h2 as a client: a hundred streams at once on one connection, with bodies both ways.

    streams.py ADDRESS
"""

import socket
import sys

import h2.config
import h2.connection
import h2.events

STREAMS = 100

host, port = sys.argv[1].rsplit(":", 1)
wire = socket.create_connection((host, int(port)), timeout=20)
client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
client.initiate_connection()
wire.sendall(client.data_to_send())

heads, bodies, ended, acknowledged = {}, {}, set(), False
started = False
while len(ended) < STREAMS:
    data = wire.recv(65536)
    if not data:
        sys.exit(f"closed after {len(ended)} of {STREAMS} answers")
    for event in client.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived):
            heads[event.stream_id] = dict(event.headers)[":status"]
        elif isinstance(event, h2.events.DataReceived):
            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
            client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            ended.add(event.stream_id)
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            sys.exit(f"{event}")
    if not started:
        # The server's SETTINGS have come, and say how many it takes.
        started = True
        for n in range(STREAMS):
            stream = client.get_next_available_stream_id()
            fields = [(":method", "POST" if n % 2 else "GET"), (":scheme", "http"), (":authority", sys.argv[1])]
            client.send_headers(stream, fields + [(":path", f"/{n}")], end_stream=n % 2 == 0)
            if n % 2:
                client.send_data(stream, b"x" * 500, end_stream=True)
    wire.sendall(client.data_to_send())

wrong = {status for status in heads.values() if status != "200"}
if wrong or len(heads) != STREAMS or len(bodies) != STREAMS:
    sys.exit(f"{len(heads)} heads, {len(bodies)} bodies, {wrong}")
print(f"Python's h2: {STREAMS} streams at once, half of them with a body")
