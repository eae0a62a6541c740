"""Connections between the processes of a run, apart from those that training uses: each to process 0, none besides.

A connection of its own breaks in the moment its process dies, on whatever machine, while collectives wait for minutes;
and no call on it can wait for one made by training. Messages are lines of JSON: ``hello``, ``beat`` and ``event``.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from dinov2_noise.upstream.lost_rank import Event, Member, Watch

_LONGEST_LINE = 65_536
_LONGEST_HELLO = 4096
_HELLO_S = 10.0


class Line:
    """One connection: whole messages in, whole messages out, nothing waits.

    ``rank`` is None for a stranger, who has not said hello; ``since``: when the connection was made, in seconds.
    """

    def __init__(self, connection: socket.socket, rank: int | None = None, since: float = 0.0) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection, self.rank, self.since, self.broken = connection, rank, since, False
        self._incoming, self._outgoing = b"", b""

    def fileno(self) -> int:
        return self.connection.fileno()

    def send(self, kind: str, content: Any = None) -> None:
        self._outgoing += json.dumps({kind: content}).encode() + b"\n"
        self.flush()

    def flush(self) -> bool:
        """Send what the connection takes; True when nothing is left to send."""
        try:
            while self._outgoing and not self.broken:
                self._outgoing = self._outgoing[self.connection.send(self._outgoing) :]
        except BlockingIOError:
            return False
        except OSError:  # its reading end will tell
            self._outgoing = b""
        return True

    def receive(self) -> list[dict[str, Any]]:
        """Messages that have arrived, perhaps not yet all of them. Sets ``broken`` when the other end is gone or talks
        of something else.
        """
        longest = _LONGEST_HELLO if self.rank is None else _LONGEST_LINE
        try:
            chunk = self.connection.recv(longest)
            self._incoming += chunk
            self.broken = not chunk
        except BlockingIOError:
            pass
        except OSError:
            self.broken = True
        *lines, self._incoming = self._incoming.split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except (ValueError, RecursionError):
            messages, self.broken = [], True
        known = [message for message in messages if isinstance(message, dict)]
        self.broken = self.broken or len(known) < len(messages) or len(self._incoming) >= longest
        return known


class Star:
    """The connections of one process: process 0 holds ``listener`` and one line to each, the others one line to it.

    Used by one thread, except for `tell` and `forget`. Process 0 passes on what it hears of one to all others.
    ``clock`` gives seconds and only goes forward.
    """

    def __init__(
        self,
        watch: Watch,
        token: str,
        *,
        listener: socket.socket | None = None,
        hub: socket.socket | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.watch, self._token, self._listener, self._clock = watch, token, listener, clock
        self._lines: list[Line] = []
        self._to_tell: deque[Event] = deque()
        # Not epoll: its state would be shared with the children that DataLoader forks.
        self._selector = selectors.PollSelector()
        self._waker, self._woken = socket.socketpair()
        for end in (self._waker, self._woken):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._drain)
        if listener is not None:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ, self._accept)
        if hub is not None:
            line = self._add(hub, rank=0)
            line.send("hello", {"token": token, **asdict(watch.own)})

    def tell(self, event: Event) -> None:
        """From any thread: let all know of ``event``."""
        self._to_tell.append(event)
        self.wake()

    def wake(self) -> None:
        with suppress(OSError):
            self._waker.send(b".")

    def step(self, longest_s: float) -> None:
        """Wait at most ``longest_s`` for news, take in all of them, then judge silence by what has arrived."""
        for key, _ in self._selector.select(longest_s):
            key.data()
        for line in [line for line in self._lines if line.rank is None and self._clock() - line.since > _HELLO_S]:
            self._drop(line)
        while self._to_tell:
            self._learn(self._to_tell.popleft())
        for line in self._lines:
            line.flush()
        for event in self.watch.found(self._clock()):
            self._learn(event)

    def beat(self) -> None:
        for line in self._lines:
            if line.rank is not None:
                line.send("beat")

    def close(self, longest_s: float) -> None:
        """Send what is left, then end all connections in order."""
        end = time.monotonic() + longest_s
        while not all([line.flush() for line in self._lines]) and time.monotonic() < end:
            time.sleep(0.01)
        for line in self._lines:
            with suppress(OSError):
                line.connection.shutdown(socket.SHUT_WR)
        self.forget()

    def forget(self) -> None:
        """Close this process's ends only; what a forked child does at once, lest it keep its parent's line open."""
        for held in (self._listener, self._waker, self._woken, *(line.connection for line in self._lines)):
            if held is not None:
                held.close()

    def _add(self, connection: socket.socket, rank: int | None = None) -> Line:
        line = Line(connection, rank, self._clock())
        self._lines.append(line)
        self._selector.register(line, selectors.EVENT_READ, self._reader(line))
        return line

    def _reader(self, line: Line) -> Callable[[], None]:
        return lambda: self._read(line)

    def _drain(self) -> None:
        with suppress(OSError):
            self._woken.recv(4096)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        self._add(connection)

    def _read(self, line: Line) -> None:
        for message in line.receive():
            try:
                self._take(line, message)
            except (KeyError, TypeError, ValueError):  # not one of ours
                line.broken = True
        if line.broken:
            self._drop(line)
            if line.rank is not None:
                self._learn(Event(self.watch.members[line.rank], "died"))

    def _drop(self, line: Line) -> None:
        self._selector.unregister(line)
        self._lines.remove(line)
        line.connection.close()

    def _take(self, line: Line, message: Mapping[str, Any]) -> None:
        if line.rank is None:
            self._welcome(line, dict(message["hello"]))
            return
        self.watch.heard(line.rank, self._clock())
        if "event" in message:
            self._learn(Event.from_dict(message["event"]), heard_from=line)

    def _welcome(self, line: Line, hello: dict[str, Any]) -> None:
        if hello.pop("token") != self._token:
            raise ValueError("a stranger")
        member = Member(int(hello["rank"]), str(hello["host"]), int(hello["pid"]))
        if not 0 < member.rank < self.watch.size:
            raise ValueError(member.rank)
        line.rank = member.rank
        self.watch.members[member.rank] = member
        self.watch.heard(member.rank, self._clock())
        for event in self.watch.events:
            line.send("event", event.to_dict())

    def _learn(self, event: Event, heard_from: Line | None = None) -> None:
        if not self.watch.note(event, self._clock()):
            return
        for line in self._lines:
            if line is not heard_from and line.rank is not None:
                line.send("event", event.to_dict())


def listen(*, one_machine: bool) -> socket.socket:
    """A listening socket on a free port, for this machine only or for all."""
    if one_machine:
        return socket.create_server(("127.0.0.1", 0), backlog=1024)
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
    return socket.create_server(("", 0), backlog=1024)


def connect(hosts: list[str], port: int, *, timeout_s: float = 20.0) -> socket.socket:
    """A connection to ``port`` of the first of ``hosts`` that answers.

    Raises:
        OSError: none does.
    """
    for host in hosts[:-1]:
        try:
            return socket.create_connection((host, port), timeout=timeout_s)
        except OSError:
            continue
    return socket.create_connection((hosts[-1], port), timeout=timeout_s)


def this_process(rank: int) -> Member:
    return Member(rank, socket.gethostname(), os.getpid())
