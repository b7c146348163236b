#!/usr/bin/env python3
"""A small client of Trine, written from protocol/README.md alone.

    python3 client.py [HOST:PORT]       needs Python 3.11 and msgpack (`pip install msgpack`, Debian's python3-msgpack)

As a program it takes a lock, moves messages through queues, reads and writes the cache, prints what it did line by line, and ends with 1
where something is not as the contract says. The numbers in the comments are sections of that page.

Left out: TLS, keeping copies (0x040e), cancelling an acquire (0x0305), keeping an idle session alive (one that ended is opened anew).
"""
import asyncio
import itertools
import random
import re
import struct
import sys
import time
from bisect import bisect_left
from pathlib import Path

try:
    import msgpack
except ImportError:
    sys.exit("this client needs the module msgpack: `pip install msgpack`, or Debian's package python3-msgpack")

# --- Frames, codes and limits (1, 7, 9, 10) ---------------------------------------------------------------------------
HEAD = struct.Struct(">IBQH")  # length, kind, id, command
HEAD_BYTES = 11  # what `length` counts of it
HELLO, WELCOME, REQUEST, RESPONSE, ERROR, PUSH, PING, PONG, GOODBYE = range(1, 10)
COMMANDS = {  # those that this client uses: code, and what may be done when the outcome is unknown
    "Status": (0x0101, "Freely"), "OpenSession": (0x0102, "Freely"), "Backup": (0x0106, "Freely"), "BackupRead": (0x0107, "Freely"),
    "Enqueue": (0x0201, "InSession"), "Dequeue": (0x0202, "InSession"), "Ack": (0x0203, "InSession"), "AckMany": (0x0206, "InSession"),
    "Subscribe": (0x0211, "Never"), "Credit": (0x0212, "Never"), "Unsubscribe": (0x0213, "Never"),
    "Acquire": (0x0301, "InSession"), "Release": (0x0302, "InSession"), "Inspect": (0x0304, "Freely"),
    "Get": (0x0401, "Freely"), "Put": (0x0402, "Never"),
}
PUSHED = 0x8201
FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX = 4_194_304, 16_384
DEADLINE_MS_MAX, SESSION_WINDOW_MAX, PARTITIONS_MAX = 60_000, 4096, 64
UNREACHABLE, NOT_LEADER, DEADLINE_EXCEEDED, SESSION_EXPIRED, OUTCOME_UNKNOWN, STILL_WAITING = 10, 30, 32, 36, 37, 55
NOT_IN_FLIGHT, LOCK_HELD, STALE_TOKEN, CONDITION_FAILED = 41, 50, 53, 63
NOT_DONE = {8, 9, 10, 30, 31, 33, 34, 35, 40, 43, 60, 61, 66}
REFUSED = {1, 2, 3, 4, 5, 6, 7, 11, 20, 21, 22, 23, 41, 42, 44, 50, 51, 52, 53, 54, 56, 57, 62, 63, 64, 65}
SILENCE_S = 2.0  # with an answer due: after this a ping, after three times this the connection is lost


class TrineError(Exception):
    """An error of the table, with what may be concluded from it; also what the client itself says of a lost connection."""

    def __init__(self, code, message, retry_after_ms=0, hint=""):
        super().__init__(f"{message} (error {code})")
        self.code, self.retry_after_ms, self.hint = code, retry_after_ms, hint
        # One that is not known counts as `Internal`, whose outcome is unknown.
        self.outcome = "NotDone" if code in NOT_DONE else "Refused" if code in REFUSED else "Unknown"

    @classmethod
    def of(cls, body):
        return cls(*fields(body, 2, 0, ""))


class Broken(Exception):
    """The other side does not keep to the contract."""


def fields(body, needed, *defaults):
    """The fields of a struct: those behind the ones that are known are skipped, those that are missing have their defaults (2)."""
    if not isinstance(body, list) or len(body) < needed:
        raise Broken(f"an array of at least {needed} was due, not {body!r}")
    known = body[: needed + len(defaults)]
    return known + list(defaults[len(known) - needed :])


def frame(kind, identity, command=0, *body):
    packed = b"".join(map(msgpack.packb, body))
    return HEAD.pack(HEAD_BYTES + len(packed), kind, identity, command) + packed


async def read_frame(reader, bytes_max):
    length, kind, identity, command = HEAD.unpack(await reader.readexactly(HEAD.size))
    if not HEAD_BYTES <= length <= bytes_max:
        raise Broken(f"a frame of {length} bytes")
    packed = await reader.readexactly(length - HEAD_BYTES)
    return kind, identity, command, msgpack.unpackb(packed) if packed else None


# --- Placement (6) ----------------------------------------------------------------------------------------------------
MASK = 2**64 - 1
P1, P2, P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P4, P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def rotate(value, bits):
    value &= MASK
    return (value << bits | value >> (64 - bits)) & MASK


def xxh64(data):
    """XXH64 with seed 0: four sums over stripes of 32 bytes, then what is left over, then an avalanche."""

    def stir(sum_, word):
        return rotate((sum_ + word * P2) & MASK, 31) * P1 & MASK

    at = 0
    if len(data) >= 32:
        sums = [(P1 + P2) & MASK, P2, 0, -P1 & MASK]
        while at + 32 <= len(data):
            sums = [stir(sum_, word) for sum_, word in zip(sums, struct.unpack_from("<4Q", data, at))]
            at += 32
        total = sum(rotate(sum_, bits) for sum_, bits in zip(sums, (1, 7, 12, 18))) & MASK
        for sum_ in sums:
            total = ((total ^ stir(0, sum_)) * P1 + P4) & MASK
    else:
        total = P5
    total = (total + len(data)) & MASK
    while at + 8 <= len(data):
        total = (rotate(total ^ stir(0, struct.unpack_from("<Q", data, at)[0]), 27) * P1 + P4) & MASK
        at += 8
    if at + 4 <= len(data):
        total = (rotate(total ^ struct.unpack_from("<I", data, at)[0] * P1 & MASK, 23) * P2 + P3) & MASK
        at += 4
    for byte in data[at:]:
        total = rotate(total ^ byte * P5 & MASK, 11) * P1 & MASK
    total = (total ^ total >> 33) * P2 & MASK
    total = (total ^ total >> 29) * P3 & MASK
    return total ^ total >> 32


class Ring:
    """Which group a name lives in."""

    def __init__(self, groups):
        self.groups = groups
        self.points = sorted((xxh64(f"{group}/{point}".encode()), group) for group in range(groups) for point in range(256))

    @staticmethod
    def placement_key(kind, name):
        tag = re.search(r"\{([^}]*)\}", name)
        if tag and tag[1]:
            return tag[1]
        if kind == "lock":
            return name.partition("/")[0] if "/" in name else "default"
        return name

    @staticmethod
    def partition(kind, name):
        """The queue that this name is a partition of, and its number; otherwise the name itself, and 0."""
        found = re.fullmatch(r"(.+)#(0|[1-9][0-9]?)", name, re.DOTALL) if kind == "queue" else None
        return (found[1], int(found[2])) if found and int(found[2]) < PARTITIONS_MAX else (name, 0)

    def group(self, kind, name):
        whole, number = self.partition(kind, name)
        at = bisect_left(self.points, (xxh64(self.placement_key(kind, whole).encode()), 0))
        return (self.points[at % len(self.points)][1] + number) % self.groups


# --- One connection (3) -----------------------------------------------------------------------------------------------
class Connection:
    """Matches answers to requests by their ids, answers pings, sorts pushes to their subscriptions, and notices when it is lost."""

    def __init__(self, address, reader, writer, welcome):
        self.address, self.reader, self.writer, self.lost = address, reader, writer, None
        self.version, self.node, _, self.cluster_id, self.groups, limits = fields(welcome, 6)
        self.frame_bytes_max, _, _, _, in_flight_max, _ = fields(limits, 6)
        self.ids, self.waiting, self.subscriptions = itertools.count(1), {}, {}
        self.room, self.heard = asyncio.Semaphore(in_flight_max), time.monotonic()
        self.tasks = [asyncio.create_task(self.listen()), asyncio.create_task(self.watch())]

    @classmethod
    async def open(cls, address, name, cluster_id=0, credentials=b""):
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(SILENCE_S):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.write(frame(HELLO, 0, 0, ["TRNE", 1, 1, "Client", name, 0, cluster_id, credentials]))
                kind, _, _, body = await read_frame(reader, HANDSHAKE_BYTES_MAX)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as why:
            raise TrineError(UNREACHABLE, f"no connection to {address}: {why or 'no answer'}") from why
        if kind == GOODBYE:
            raise TrineError.of(body)
        if kind != WELCOME:
            raise Broken(f"a frame of kind {kind} in place of a welcome")
        return cls(address, reader, writer, body)

    async def ask(self, name, header, message, within_s, pushes=None):
        """One request and its one answer; `pushes` is where the deliveries of a subscription go."""
        async with self.room:
            if self.lost:
                raise TrineError(UNREACHABLE, self.lost)
            identity, answer = next(self.ids), asyncio.get_running_loop().create_future()
            self.waiting[identity] = answer
            if pushes is not None:
                self.subscriptions[identity] = pushes
            self.writer.write(frame(REQUEST, identity, COMMANDS[name][0], [header, message]))
            try:
                async with asyncio.timeout(within_s):
                    return await answer
            except TimeoutError:
                raise TrineError(DEADLINE_EXCEEDED, f"{self.address} did not answer {name} in its time") from None
            finally:
                del self.waiting[identity]

    async def listen(self):
        why = "closed"
        try:
            while True:
                kind, identity, command, body = await read_frame(self.reader, self.frame_bytes_max)
                self.heard = time.monotonic()
                if kind == PING:
                    self.writer.write(frame(PONG, identity))
                elif kind == GOODBYE:
                    why = str(TrineError.of(body))
                    break
                elif kind == PUSH and command == PUSHED:
                    subscription, deliveries, ended = fields(body, 2, None)
                    if subscription in self.subscriptions:
                        self.subscriptions[subscription].put_nowait(TrineError.of(ended) if ended else deliveries)
                elif kind in (RESPONSE, ERROR) and identity in self.waiting and not self.waiting[identity].done():
                    answer = self.waiting[identity]
                    answer.set_result(body) if kind == RESPONSE else answer.set_exception(TrineError.of(body))
        except (asyncio.IncompleteReadError, OSError, Broken, ValueError) as error:
            why = str(error)
        self.lost = f"the connection to {self.address} is lost: {why}"
        self.writer.close()
        for answer in self.waiting.values():  # they were sent: nobody knows what became of them
            if not answer.done():
                answer.set_exception(TrineError(OUTCOME_UNKNOWN, self.lost))
        for pushes in self.subscriptions.values():
            pushes.put_nowait(TrineError(OUTCOME_UNKNOWN, self.lost))

    async def watch(self):
        while not self.lost:
            await asyncio.sleep(SILENCE_S)
            silent_s = time.monotonic() - self.heard
            if self.waiting and silent_s > 3 * SILENCE_S:
                self.writer.transport.abort()
            elif self.waiting and silent_s > SILENCE_S:
                self.writer.write(frame(PING, 0))

    def close(self):
        for task in self.tasks:
            task.cancel()
        self.writer.close()


class Session:
    """Numbers of one group's commands, so that one that is sent again is executed once (5)."""

    def __init__(self, identity):
        self.identity, self.next, self.wanted, self.moved = identity, 1, set(), asyncio.Condition()

    @property
    def acked_below(self):
        return min(self.wanted, default=self.next)

    async def take_number(self):
        async with self.moved:
            await self.moved.wait_for(lambda: self.next - self.acked_below < SESSION_WINDOW_MAX)
            self.next += 1
            self.wanted.add(self.next - 1)
            return self.next - 1

    async def done_with(self, number):
        async with self.moved:
            self.wanted.discard(number)
            self.moved.notify_all()


# --- The client (4, 11) -----------------------------------------------------------------------------------------------
class Client:
    def __init__(self, name, home):
        self.name, self.home, self.cluster_id = name, home, 0  # cache requests stay at home
        self.endpoints, self.leaders, self.connections, self.sessions = [home], {}, {}, {}
        self.opening = asyncio.Lock()
        self.followed = 0  # how often a hint led on to a leader

    async def start(self):
        """Says hello, and learns who is there and who leads which group."""
        self.ring = Ring((await self.connection(self.home)).groups)
        node, _, _, _, _, nodes, groups, *_ = fields(await self.call("Status", [], at=self.home), 7)
        addresses = {name: client for name, client, *_ in nodes}
        self.endpoints += [client for name, client in addresses.items() if name != node]
        self.leaders = {group: addresses[leader] for group, _, _, _, leader, *_ in groups if leader in addresses}
        return self

    async def connection(self, address):
        async with self.opening:
            if address not in self.connections or self.connections[address].lost:
                self.connections[address] = await Connection.open(address, self.name, self.cluster_id)
                self.cluster_id = self.connections[address].cluster_id
            return self.connections[address]

    async def alive(self):
        """The endpoints that can be connected to; home is the first."""
        alive = []
        for endpoint in self.endpoints:
            try:
                alive.append((await self.connection(endpoint)).address)
            except TrineError:
                pass
        return alive

    async def session(self, group):
        if group not in self.sessions:
            opened, _ = fields(await self.call("OpenSession", [group], group), 2)
            self.sessions.setdefault(group, Session(opened))
        return self.sessions[group]

    async def call(self, name, message, group=None, at=None, within_s=10.0):
        return (await self.timed_call(name, message, group, at, within_s))[0]

    async def timed_call(self, name, message, group=None, at=None, within_s=10.0, attempt_s=None):
        """Sends a request as often as the picture of section 4 allows. Also returns the instant from which a lease that it was granted counts.

        `group` is whose leader to ask and whose session to use; `at` the one node to ask, for what is not forwarded.
        """
        repeat, ends, session, number = COMMANDS[name][1], time.monotonic() + within_s, None, 0
        address, pause_s, hints, counts_from, unknown = at or self.leaders.get(group, self.home), 0.01, 0, None, None
        try:
            while True:
                if repeat == "InSession" and session is None:
                    session = await self.session(group)
                    number = await session.take_number()
                now = time.monotonic()
                attempt = min(ends - now, attempt_s or within_s, DEADLINE_MS_MAX / 1000)
                counts_from = counts_from or now
                header = [max(1, int(attempt * 1000))] + ([session.identity, number, session.acked_below] if session else [])
                try:
                    answer = await (await self.connection(address)).ask(name, header, message, attempt + 0.5)
                    if name == "Backup":  # Nobody but the leader answers it.
                        self.leaders[group] = address
                    return answer, counts_from
                except TrineError as error:
                    again_at_once = False
                    if error.code == STILL_WAITING and session:
                        counts_from, unknown, again_at_once = now, error, True
                    elif error.code == SESSION_EXPIRED and not unknown and session:
                        if self.sessions.get(group) is session:
                            del self.sessions[group]
                        session, again_at_once = None, True
                    elif error.code == OUTCOME_UNKNOWN and repeat != "Never":
                        unknown = error
                    elif error.outcome != "NotDone":
                        raise
                    if error.code == NOT_LEADER and error.hint and at is None and hints < len(self.endpoints):
                        hints, self.followed, address, again_at_once = hints + 1, self.followed + 1, error.hint, True
                        self.leaders[group] = address
                    elif not again_at_once and at is None:
                        self.leaders.pop(group, None)
                        others = [endpoint for endpoint in self.endpoints if endpoint != address]
                        address = random.choice(others or self.endpoints)
                    if not again_at_once:
                        wait_s = max(pause_s * random.uniform(0.5, 1), error.retry_after_ms / 1000)
                        pause_s = min(2 * pause_s, 1.0)
                        if time.monotonic() + wait_s < ends:
                            await asyncio.sleep(wait_s)
                            continue
                    if time.monotonic() >= ends or not again_at_once:
                        raise (unknown or error) from None  # an attempt that was not done says nothing about one before it
        finally:
            if session:
                await session.done_with(number)

    async def acquire(self, lock, lease_ms, wait_ms=0):
        """The fencing token, and the instant until which the lock is certainly held."""
        message = [lock, self.name, lease_ms, "Exclusive", wait_ms]
        group, attempt_s = self.ring.group("lock", lock), lease_ms / 4000 if wait_ms else None
        answer, counts_from = await self.timed_call("Acquire", message, group, None, wait_ms / 1000 + 10, attempt_s)
        token, lease_ms, *_ = fields(answer, 2)
        return token, counts_from + lease_ms * 0.99 / 1000

    async def release(self, lock, token):
        was_held, _ = fields(await self.call("Release", [lock, self.name, token], self.ring.group("lock", lock)), 1, 0)
        return was_held

    async def enqueue(self, queue, body, if_token=None):
        identity, duplicate, _ = fields(
            await self.call("Enqueue", [queue, body, if_token], self.ring.group("queue", queue)), 1, False, None)
        return identity, duplicate

    async def dequeue(self, queue, count_max=1):
        return fields(await self.call("Dequeue", [queue, 0, count_max], self.ring.group("queue", queue)), 1)[0]

    async def ack(self, queue, identity, token):
        return fields(await self.call("Ack", [queue, {"Receipt": [identity, token]}], self.ring.group("queue", queue)), 1)[0]

    async def subscribe(self, queue, credit):
        return await Subscription(self, queue).start(credit)

    async def get(self, key):
        value, version, state, source, _ = fields(await self.call("Get", [key], at=self.home), 4, "")
        return value, version, state, source

    async def put(self, key, value, only_if="Anything"):
        return fields(await self.call("Put", [key, value, only_if], at=self.home), 1)[0]

    def close(self):
        for connection in self.connections.values():
            connection.close()


class Subscription:
    """Messages that come by themselves, over one connection: what is acknowledged goes over the same (0x0211)."""

    def __init__(self, client, queue):
        self.client, self.queue, self.pushes = client, queue, asyncio.Queue()
        self.group = client.ring.group("queue", queue)

    async def start(self, credit):
        self.connection = await self.client.connection(self.client.leaders.get(self.group, self.client.home))
        answer = await self.connection.ask("Subscribe", [5000], [self.queue, self.client.name, credit], 5.5, self.pushes)
        self.number = fields(answer, 1)[0]
        return self

    async def next(self, within_s):
        async with asyncio.timeout(within_s):
            deliveries = await self.pushes.get()
        if isinstance(deliveries, TrineError):
            raise deliveries
        return deliveries

    async def ack(self, deliveries):
        message = [self.queue, [[identity, token] for identity, token, *_ in deliveries]]
        return fields(await self.client.call("AckMany", message, self.group, self.connection.address), 1)[0]

    async def credit(self, more):
        return fields(await self.connection.ask("Credit", [5000], [self.number, more], 5.5), 1)[0]

    async def end(self):
        await self.connection.ask("Unsubscribe", [5000], [self.number], 5.5)
        self.connection.subscriptions.pop(self.number, None)


# --- The program ------------------------------------------------------------------------------------------------------
def promised(holds, what):
    """Ends the program unless the cluster did what the contract says."""
    if not holds:
        raise Broken(what)


async def refused(code, otherwise, attempt):
    """The error with this code, which is due; `otherwise` is what has happened where there is none."""
    try:
        answer = await attempt
    except TrineError as error:
        promised(error.code == code, f"error {code} was due, not: {error}")
        return error
    raise Broken(f"{otherwise}: {answer}")


def placement_vectors():
    """Holds the ring against the table of the page beside this folder."""
    page = Path(__file__).resolve().parent.parent / "README.md"
    if not page.exists():
        return print(f"placement   not checked: there is no {page}")
    table = page.read_text(encoding="utf-8").split("<!-- begin placement -->")[1].split("<!-- end placement -->")[0]
    rows = re.findall(r"^\| (queue|key|lock) \| `(.*?)` \| (.*?) \| `(\w+)` \| (\d+) \| (\d+) \|$", table, re.MULTILINE)
    promised(len(rows) == len(table.strip().splitlines()) - 2, "not every row of the page's table can be read")
    of_3, of_16 = Ring(3), Ring(16)
    for kind, name, *due in rows:
        key = Ring.placement_key(kind, Ring.partition(kind, name)[0])
        found = [f"`{key}`" if key else "(empty)", f"{xxh64(key.encode()):016x}", str(of_3.group(kind, name)), str(of_16.group(kind, name))]
        promised(found == due, f"the placement of the {kind} {name} is {due}, not {found}")
    print(f"placement   {len(rows)} names of the page are where it says")


async def backup(client, group):
    """The bytes of a group's copy, from its leader (0x0106, 0x0107)."""
    number, index = fields(await client.call("Backup", [group], group), 2)
    leader, part, copy, stands = client.leaders[group], 0, b"", None
    while stands is None:
        some, stands = fields(await client.call("BackupRead", [number, part], at=leader), 2)
        part, copy = part + 1, copy + some
    promised(stands[0] >= index, f"the copy stands at {stands[0]}, below {index}")
    return copy


async def hints(client):
    """A backup is never forwarded: a node that does not lead the group names the one that does (4)."""
    for asked in sorted(await client.alive(), key=lambda endpoint: endpoint == client.leaders.get(0)):
        client.leaders[0], before = asked, client.followed
        length = len(await backup(client, 0))
        if client.followed > before:
            return print(f"hint        {asked} does not lead group 0 and names {client.leaders[0]}, which gives a copy of {length} bytes")
    promised(len(await client.alive()) == 1, "every node says that it leads group 0")


async def locks(one, two, tag):
    lock, queue = f"{{{tag}}}lock", f"{{{tag}}}guarded"
    token, held_until = await one.acquire(lock, 10_000)
    print(f"lock        {one.name} holds {lock} with the fencing token {token} for {held_until - time.monotonic():.1f} s more")
    held = await refused(LOCK_HELD, "a second client was granted a held lock", two.acquire(lock, 10_000))
    promised(held.hint == one.name, f"the hint of LockHeld is the holder, not {held.hint}")
    print(f"lock        {two.name} is refused: {held}")
    await one.enqueue(queue, b"by the holder", [lock, token])
    waiter = asyncio.create_task(two.acquire(lock, 2_000, wait_ms=20_000))
    await asyncio.sleep(0.8)  # longer than one attempt of the waiter: it is answered StillWaiting, and goes on
    promised(not waiter.done(), "a second client was granted a held lock")
    promised(await one.release(lock, token), "the holder released a lock that it did not hold")
    later, _ = await waiter
    promised(later > token, f"the token {later} is not above {token}")
    stale = await refused(STALE_TOKEN, "an enqueue under an old token was taken", one.enqueue(queue, b"too late", [lock, token]))
    print(f"lock        {two.name} waited and has it with the token {later}; the old one is refused: {stale}")
    promised(await two.release(lock, later), "the waiter released a lock that it did not hold")


async def queues(client, queue):
    identity, _ = await client.enqueue(queue, b"hello")
    deliveries = await client.dequeue(queue)
    promised(len(deliveries) == 1, f"one message is in {queue}, not {len(deliveries)}")
    got, token, times, body, _ = fields(deliveries[0], 4, None)
    promised((got, times, body) == (identity, 1, b"hello"), f"the message is not the one that was enqueued: {deliveries[0]}")
    promised(await client.dequeue(queue) == [], "a message that is in flight was handed out again")
    await client.ack(queue, got, token)
    again = await refused(NOT_IN_FLIGHT, "a message was acknowledged twice", client.ack(queue, got, token))
    print(f"queue       message {identity} went through {queue}; acknowledged again it is refused: {again}")
    # The same number again, as after a lost answer: the first answer again, and one message.
    group = client.ring.group("queue", queue)
    session, connection = await client.session(group), await client.connection((await client.alive())[-1])
    number = await session.take_number()
    header = [5000, session.identity, number, session.acked_below]
    answers = [fields(await connection.ask("Enqueue", header, [queue, b"once"], 5.5), 1, False, None)[0] for _ in range(2)]
    await session.done_with(number)
    deliveries = await client.dequeue(queue, 10)
    promised(answers[0] == answers[1] and len(deliveries) == 1, f"one number, sent twice: {answers}, {deliveries}")
    await client.ack(queue, *deliveries[0][:2])
    print(f"session     an enqueue that was sent twice as number {number} is one message, {answers[0]}, with one answer")


async def pushes(client, queue):
    sent = [(await client.enqueue(queue, b"message %d" % number))[0] for number in range(5)]
    subscription, got = await client.subscribe(queue, 2), []
    for credit in (2, 3):
        deliveries = []
        while len(deliveries) < credit:
            deliveries += await subscription.next(5.0)
        try:
            promised(False, f"pushed beyond the credit: {await subscription.next(0.3)}")
        except TimeoutError:
            print(f"push        {len(deliveries)} messages for a credit of {credit}: {', '.join(d[3].decode() for d in deliveries)}")
        promised(await subscription.ack(deliveries) == [], "a receipt was refused")
        got += [identity for identity, *_ in deliveries]
        if len(got) < len(sent):
            await subscription.credit(len(sent) - len(got))
    promised(got == sent, f"pushed were {got}, in this order: {sent}")
    await subscription.end()
    promised(await client.dequeue(queue) == [], "an acknowledged message is still there")
    print(f"push        all {len(got)} came in their order, and are acknowledged")


async def cache(one, two, key):
    version = await one.put(key, b"first")
    value, seen, state, source = await two.get(key)
    promised((value, seen) == (b"first", version), f"{two.home} reads {value} of version {seen}")
    print(f"cache       {key} is written at {one.home}, read at {two.home}: {value.decode()}, state {state}, from {source}")
    await two.put(key, b"second", {"Version": version})
    failed = await refused(CONDITION_FAILED, "a write over another version was taken", one.put(key, b"third", {"Version": version}))
    value, seen, *_ = await one.get(key)
    promised(value == b"second" and f"{seen[0]}.{seen[1]}" == failed.hint, f"read {value} of {seen}, the hint was {failed.hint}")
    print(f"cache       compare-and-swap held: {value.decode()} of version {failed.hint}")


async def main(address):
    tag = f"python-{random.getrandbits(40):x}"  # names of this run
    placement_vectors()
    one = await Client("python-one", address).start()
    welcome = await one.connection(address)
    there = f"{one.ring.groups} groups, {len(one.endpoints)} nodes"
    print(f"connected   {welcome.node} of cluster {one.cluster_id:016x}, version {welcome.version}, {there}")
    two = await Client("python-two", (await one.alive())[-1]).start()
    await hints(one)
    await locks(one, two, tag)
    await queues(one, f"{tag}-orders")
    await pushes(two, f"{tag}-pushed")
    await cache(one, two, f"{tag}-key")
    one.close()
    two.close()
    print("all as promised")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:4101"))
    except (Broken, TrineError, TimeoutError) as error:
        print(f"not as promised: {str(error) or 'nothing came in time'}")
        sys.exit(1)
