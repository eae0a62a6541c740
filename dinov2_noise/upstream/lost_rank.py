"""What one process of a run knows of the others, and when it must stop because of one of them.

No sockets, no clock and no torch here: times are given, in seconds of any clock that only goes forward.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

LOST_RANK_STATUS = 75
"""Exit status of a process that stops because of another one (``EX_TEMPFAIL``: the same command may be tried again)."""

SETTLE_S = 2.0
"""How long a process waits between the news and its own end: others that fail by themselves shall say so."""

# What one says of itself: it ended, it failed, it failed in talking to another. What others find: it died (its
# connection broke), it is silent, it left early (ended, and then a process that needed it failed).
_FATAL = ("error", "died", "silent", "left")
_KINDS = ("ended", "consequence", *_FATAL)
_REPLACES = {"error": "consequence", "left": "ended"}


@dataclass(frozen=True)
class Member:
    """One process of the run; ``host`` is empty as long as it is not known."""

    rank: int
    host: str = ""
    pid: int = 0


@dataclass(frozen=True)
class Event:
    """What became of a process: ``kind`` is one of ended, consequence, error, died, silent, left; ``text`` an error's
    type and first line, or the seconds of silence.
    """

    member: Member
    kind: str
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Event:
        """The inverse of `to_dict`.

        Raises:
            ValueError, KeyError, TypeError: ``content`` is something else.
        """
        if content["kind"] not in _KINDS:
            raise ValueError(content["kind"])
        return cls(Member(**content["member"]), str(content["kind"]), str(content["text"]))


class Watch:
    """The knowledge of one process. ``watched``: ranks whose signs of life arrive here; ``size``: processes in all."""

    def __init__(self, own: Member, size: int, watched: Iterable[int], *, timeout_s: float, now: float) -> None:
        self.own, self.size, self.timeout_s = own, size, timeout_s
        self.members = {rank: Member(rank) for rank in range(size)} | {own.rank: own}
        self._heard_at = dict.fromkeys(watched, now)
        self._events: dict[int, Event] = {}
        self._noted_at: dict[int, float] = {}
        self._looked_at = now

    @property
    def events(self) -> list[Event]:
        return list(self._events.values())

    def heard(self, rank: int, now: float) -> None:
        """A sign of life."""
        if rank in self._heard_at:
            self._heard_at[rank] = now

    def note(self, event: Event, now: float) -> bool:
        """Keep what became of a process; False when something that counts at least as much is known already."""
        rank = event.member.rank
        known = self._events.get(rank)
        if not 0 <= rank < self.size or (known is not None and _REPLACES.get(event.kind) != known.kind):
            return False
        if not event.member.host:
            event = replace(event, member=self.members[rank])
        # Taken out first: the order of events is the order in which they came to count.
        self._events.pop(rank, None)
        self._events[rank] = event
        self._noted_at[rank] = now
        return True

    def found(self, now: float) -> list[Event]:
        """What follows from the silence of processes at ``now``; to be noted by the caller.

        A look that comes late means that this process itself was stopped: then all get their full time again.
        """
        late, self._looked_at = now - self._looked_at > self.timeout_s / 2, now
        if late:
            self._heard_at = dict.fromkeys(self._heard_at, now)
        waiting = {rank: at for rank, at in self._heard_at.items() if rank not in self._events}
        silent = [
            Event(self.members[rank], "silent", f"{self.timeout_s:.0f}")
            for rank, at in waiting.items()
            if now - at > self.timeout_s
        ]
        return silent or self._causes_by_exclusion(waiting)

    def _causes_by_exclusion(self, waiting: dict[int, float]) -> list[Event]:
        """A failed conversation is the cause itself once all others have given a sign of life after it."""
        failed = [event for event in self._events.values() if event.kind == "consequence"]
        if not failed or self.own.rank != 0 or self._fatal():
            return []
        since = self._noted_at[failed[0].member.rank]
        if any(at <= since + SETTLE_S for at in waiting.values()):
            return []
        ended = [event for event in self._events.values() if event.kind == "ended"]
        return [replace(ended[0], kind="left")] if ended else [replace(failed[0], kind="error")]

    def _fatal(self) -> list[Event]:
        return [event for event in self._events.values() if event.kind in _FATAL]

    def cause(self, now: float) -> Event | None:
        """Why the run cannot go on: the first fatal event, once the others have had time to tell their own."""
        fatal = self._fatal()
        if not fatal or now - self._noted_at[fatal[0].member.rank] < SETTLE_S:
            return None
        return fatal[0]

    def describe(self, cause: Event) -> str:
        """One sentence on ``cause`` and what fell with it."""
        what = {
            "error": f"stopped with {cause.text}",
            "died": "ended without a word: it crashed or was killed (out of memory?), or its machine went down",
            "silent": f"gave no sign of life for {cause.text} s: it is stopped, or its machine is gone",
            "left": "had ended before the others",
        }[cause.kind]
        also = [str(event.member.rank) for event in self._fatal() if event.member.rank != cause.member.rank]
        lost = f" (lost as well: {', '.join(also)})" if also else ""
        return f"{self._name(cause.member)} {what}{lost}"

    def _name(self, member: Member) -> str:
        where = f" (host {member.host}, pid {member.pid})" if member.host else ""
        return f"process {member.rank} of {self.size}{where}"


def summary(error: BaseException) -> str:
    """An error's type and the first line of its message, at most 300 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def is_consequence(error: BaseException) -> bool:
    """Whether ``error`` says that talking to another process failed: then the cause is probably over there."""
    if any(kind.__name__ == "DistError" for kind in type(error).__mro__):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in message for word in ("gloo", "nccl", "closed by peer"))
