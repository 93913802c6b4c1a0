"""A link between two network namespaces that is slow, far and lossy: two TUN devices, and this process between them.

usage: link.py NAMESPACE_A DEVICE_A CIDR_A NAMESPACE_B DEVICE_B CIDR_B DELAY_MS LOSS BITS_PER_S SEED

Every packet waits its turn at the link's rate, then the delay, and may be lost; a direction holds a bounded number of bytes. It does what
`tc netem` does on kernels that have it, and needs no module. Lines on standard input change a direction while it runs: `a 1.0` loses
everything that comes from A. It says `ready` when packets may go, and ends when its input ends.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
PACKET_BYTES_MAX = 2048
QUEUE_BYTES_MAX = 32 * 1024


def device(namespace, name, cidr):
    """A TUN device in a namespace; packets that its kernel sends are read from the file."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "netns", namespace], check=True)
    for words in (["addr", "add", cidr, "dev", name], ["link", "set", name, "mtu", "1400", "up"]):
        subprocess.run(["ip", "-n", namespace, *words], check=True)
    return file


class Direction:
    """One way: what is on it, and when it is free again."""

    def __init__(self, source, target, delay_s, loss, bits_per_s, chance):
        self.source, self.target = source, target
        self.delay_s, self.loss, self.bits_per_s, self.chance = delay_s, loss, bits_per_s, chance
        self.free_at, self.waiting, self.bytes, self.count = 0.0, [], 0, 0

    def take(self, now):
        try:
            packet = os.read(self.source, PACKET_BYTES_MAX)
        except BlockingIOError:
            return
        if self.chance.random() < self.loss or self.bytes + len(packet) > QUEUE_BYTES_MAX:
            return
        self.free_at = max(now, self.free_at) + len(packet) * 8 / self.bits_per_s
        self.bytes += len(packet)
        self.count += 1
        heapq.heappush(self.waiting, (self.free_at + self.delay_s, self.count, packet))

    def deliver(self, now):
        while self.waiting and self.waiting[0][0] <= now:
            packet = heapq.heappop(self.waiting)[2]
            self.bytes -= len(packet)
            try:
                os.write(self.target, packet)
            except OSError:
                pass  # The other end's device is down: the packet is lost, as on any link.


def main():
    space_a, name_a, cidr_a, space_b, name_b, cidr_b, delay_ms, loss, bits_per_s, seed = sys.argv[1:]
    a, b = device(space_a, name_a, cidr_a), device(space_b, name_b, cidr_b)
    chance = random.Random(int(seed))
    how = (float(delay_ms) / 1000, float(loss), float(bits_per_s), chance)
    ways = {"a": Direction(a, b, *how), "b": Direction(b, a, *how)}
    print("ready", flush=True)
    commands = b""
    while True:
        now = time.monotonic()
        for way in ways.values():
            way.deliver(now)
        due = [way.waiting[0][0] for way in ways.values() if way.waiting]
        wait = max(0.0, min(due) - now) if due else None
        readable, _, _ = select.select([a, b, sys.stdin.fileno()], [], [], wait)
        now = time.monotonic()
        for way in ways.values():
            if way.source in readable:
                way.take(now)
        if sys.stdin.fileno() in readable:
            more = os.read(sys.stdin.fileno(), 4096)
            if not more:
                return
            commands += more
            while b"\n" in commands:
                line, commands = commands.split(b"\n", 1)
                which, loss = line.decode().split()
                ways[which].loss = float(loss)


main()
