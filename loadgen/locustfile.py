"""The load of `trine-loadgen rest`, put on a cluster by Locust.

Users of the queues make ten enqueues to five dequeues with their acknowledgements, 0.1 to 0.5 s apart; a message goes to
the queue address that its body hashes to. Users of the lock acquire one hot lock at a random address, hold it for 0.5 to 1.5 s
and release it. A 409 of an acquire is an answer and no failure; it is counted as `acquire 409`.

How to run it against the cluster of `cargo run --release` (ports moved by an offset: say so in TRINE_PORT_OFFSET):

    python3 -m venv venv
    venv/bin/pip install locust
    venv/bin/locust -f loadgen/locustfile.py --headless --users 60 --spawn-rate 60 --run-time 60s --only-summary

`--users` is shared out between the two kinds five to one, so 60 are the 50 and 10 that `trine-loadgen rest` has by default.

Python needs about a hundred times the processor time of `trine-loadgen` for a request. On a machine that the cluster
shares, its percentiles are mostly its own.
"""

import bisect
import hashlib
import os
import random
import time
import uuid

from locust import HttpUser, between, task

OFFSET = int(os.environ.get("TRINE_PORT_OFFSET", "0"))
QUEUE_ADDRESSES = [f"http://127.0.0.1:{8000 + node + OFFSET}" for node in range(3)]
LOCK_ADDRESSES = [f"http://127.0.0.1:{9000 + node + OFFSET}" for node in range(3)]
POINTS_PER_ADDRESS = 128
HOT_LOCK = f"locust-hot-{uuid.uuid4().hex[:8]}"
LEASE_SECONDS = 10


def position(text):
    """A place on the circle of 64-bit numbers."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Ring:
    """Consistent hashing: an address that goes away moves only its own messages."""

    def __init__(self, addresses):
        points = [(position(f"{a}#{p}"), a) for a in addresses for p in range(POINTS_PER_ADDRESS)]
        self.points = sorted(points)
        self.positions = [place for place, _ in self.points]

    def address(self, message):
        following = bisect.bisect_left(self.positions, position(message)) % len(self.points)
        return self.points[following][1]


RING = Ring(QUEUE_ADDRESSES)


class QueueUser(HttpUser):
    """Puts messages into the queues and takes them out again."""

    host = QUEUE_ADDRESSES[0]
    weight = 5
    wait_time = between(0.1, 0.5)

    @task(10)
    def enqueue(self):
        message = uuid.uuid4().hex
        self.client.post(f"{RING.address(message)}/enqueue", json={"message": message}, name="enqueue")

    @task(5)
    def dequeue_and_ack(self):
        address = random.choice(QUEUE_ADDRESSES)
        answer = self.client.get(f"{address}/dequeue", name="dequeue")
        if answer.ok and answer.json()["status"] == "dequeued":
            self.client.post(f"{address}/ack", json={"message": answer.json()["message"]}, name="ack")


class LockUser(HttpUser):
    """Contends for one lock."""

    host = LOCK_ADDRESSES[0]
    weight = 1
    wait_time = between(0.1, 0.5)
    hold_time = between(0.5, 1.5)

    def on_start(self):
        self.client_id = f"locust-{uuid.uuid4().hex[:8]}"

    @task
    def acquire_and_release(self):
        url = f"{random.choice(LOCK_ADDRESSES)}/lock/acquire"
        grant = {"lock_name": HOT_LOCK, "client_id": self.client_id, "timeout_sec": LEASE_SECONDS}
        with self.client.post(url, json=grant, name="acquire", catch_response=True) as answer:
            if answer.status_code == 409:
                answer.request_meta["name"] = "acquire 409"
                answer.success()
            held = answer.status_code == 200
        if held:
            # Locust makes this yield to the other users.
            time.sleep(self.hold_time())
            body = {"lock_name": HOT_LOCK, "client_id": self.client_id}
            self.client.post(f"{random.choice(LOCK_ADDRESSES)}/lock/release", json=body, name="release")
