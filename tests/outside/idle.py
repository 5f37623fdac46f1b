"""Many idle connections: opened here, each after one request, held while Pintle is weighed.

    idle.py HOST:PORT PID COUNT MAX_KIB    fails when one connection weighs more than MAX_KIB
"""

import re
import resource
import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nhost: idle\r\n\r\n"
PARKED_AFTER = 3  # seconds: Pintle gives an idle connection's state back after one


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def main(address, pid, count, limit):
    host, port = address.rsplit(":", 1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    before = resident_kib(pid)
    sockets = []
    for _ in range(count):
        sockets.append(socket.create_connection((host, int(port)), timeout=20))
        sockets[-1].sendall(REQUEST)
        assert sockets[-1].recv(4096).startswith(b"HTTP/1.1 200"), "a connection was not served"
    time.sleep(PARKED_AFTER)
    each = (resident_kib(pid) - before) / count
    for one in sockets[:: max(1, count // 100)]:
        one.sendall(REQUEST)
        assert one.recv(4096).startswith(b"HTTP/1.1 200"), "an idle connection was lost"
    print(f"idle: {count} connections, {each:.1f} KiB of resident memory each")
    assert each <= limit, f"more than {limit} KiB each"


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
