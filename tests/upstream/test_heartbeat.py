"""What a process concludes from what it hears of the others: the rules with a clock of our own, then real sockets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dinov2_noise.launch import Failure
from dinov2_noise.upstream.lost_rank import SETTLE_S, Event, Member, Watch, is_consequence, summary
from dinov2_noise.upstream.star import Line, Star, connect, listen

HOSTS = [Member(rank, f"gpu0{rank // 2}", 100 + rank) for rank in range(4)]


def _hub(timeout_s: float = 45.0) -> Watch:
    """Process 0 of four, which has met the others at time 0."""
    watch = Watch(HOSTS[0], 4, range(1, 4), timeout_s=timeout_s, now=0.0)
    watch.members.update({member.rank: member for member in HOSTS})
    return watch


def _beats(watch: Watch, until: float, *ranks: int, since: float = 0.0) -> None:
    for second in range(int(since) + 1, int(until) + 1):
        for rank in ranks:
            watch.heard(rank, float(second))
        for event in watch.found(float(second)):
            watch.note(event, float(second))


def test_silence_counts_from_the_last_sign_of_life() -> None:
    watch = _hub()
    _beats(watch, 20, 1, 2, 3)
    _beats(watch, 65, 1, 2, since=20)
    assert watch.cause(70.0) is None
    _beats(watch, 66, 1, 2, since=65)
    assert watch.cause(66.0) is None, "others may still tell their own end"
    cause = watch.cause(66.0 + SETTLE_S)
    assert cause == Event(HOSTS[3], "silent", "45")
    assert watch.describe(cause).startswith("process 3 of 4 (host gpu01, pid 103) gave no sign of life for 45 s")


def test_a_process_that_was_itself_stopped_does_not_blame_the_others() -> None:
    watch = _hub()
    _beats(watch, 10, 1, 2, 3)
    assert watch.found(500.0) == []
    assert watch.found(510.0) == []
    _beats(watch, 546, 1, 2, since=510)
    assert [event.member.rank for event in watch.events] == [3]


def test_a_goodbye_is_no_death() -> None:
    watch = _hub()
    watch.note(Event(HOSTS[1], "ended"), 1.0)
    assert not watch.note(Event(Member(1), "died"), 1.1)
    _beats(watch, 200, 2, 3, since=1)
    assert watch.cause(300.0) is None


def test_the_first_news_is_the_cause_and_the_rest_is_listed() -> None:
    watch = _hub()
    watch.note(Event(HOSTS[2], "error", "DivergedError: the loss is not finite"), 1.0)
    watch.note(Event(HOSTS[2], "died"), 1.1)
    watch.note(Event(Member(3), "died"), 1.2)
    cause = watch.cause(1.0 + SETTLE_S)
    assert cause is not None
    assert watch.describe(cause) == (
        "process 2 of 4 (host gpu01, pid 102) stopped with DivergedError: the loss is not finite (lost as well: 3)"
    )
    assert Event.from_dict(cause.to_dict()) == cause


def test_a_failed_conversation_waits_for_its_cause() -> None:
    watch = _hub()
    _beats(watch, 10, 1, 2, 3)
    watch.note(Event(HOSTS[1], "consequence", "RuntimeError: gloo"), 10.0)
    _beats(watch, 40, 2, since=10)
    assert watch.cause(40.0) is None, "process 3 has not been heard of since"
    _beats(watch, 56, 2, since=40)
    cause = watch.cause(60.0)
    assert cause is not None
    assert (cause.member.rank, cause.kind) == (3, "silent")


@pytest.mark.parametrize(("ended", "blamed", "kind"), [(False, 1, "error"), (True, 2, "left")])
def test_a_failed_conversation_is_the_cause_when_all_others_live(ended: bool, blamed: int, kind: str) -> None:
    watch = _hub()
    if ended:
        watch.note(Event(HOSTS[2], "ended"), 5.0)
    watch.note(Event(HOSTS[1], "consequence", "RuntimeError: gloo"), 10.0)
    _beats(watch, 20, 2, 3, since=10)
    cause = watch.cause(20.0)
    assert cause is not None
    assert (cause.member.rank, cause.kind) == (blamed, kind)


def test_errors_in_talking_to_another_process_are_told_from_own_errors() -> None:
    assert is_consequence(RuntimeError("[/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1: Connection reset"))
    assert is_consequence(RuntimeError("NCCL communicator was aborted on rank 1"))
    assert not is_consequence(ValueError("gloo"))
    assert not is_consequence(RuntimeError("CUDA out of memory"))
    assert summary(ValueError("first\nsecond")) == "ValueError: first"
    assert summary(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_what_the_launcher_says_of_a_failed_process() -> None:
    assert str(Failure(1, 7, -9)) == "process 1 (pid 7) was killed by SIGKILL (perhaps by the system, out of memory)"
    assert str(Failure(1, 7, 1)) == "process 1 (pid 7) ended with status 1"
    assert str(Failure(1, 7, -15, "ValueError: no")) == "process 1 (pid 7) stopped with ValueError: no"
    assert str(Failure(0, 7, 75, "process 1 of 2 died")) == "process 1 of 2 died"


@pytest.fixture
def stars() -> Iterator[list[Star]]:
    """Three connected processes, in one."""
    listener = listen(one_machine=True)
    port = listener.getsockname()[1]
    made = []
    for rank in range(3):
        watched = (1, 2) if rank == 0 else (0,)
        watch = Watch(HOSTS[rank], 3, watched, timeout_s=45, now=time.monotonic())
        hub = connect(["127.0.0.1"], port) if rank else None
        made.append(Star(watch, "secret", listener=listener if rank == 0 else None, hub=hub))
    _step_until(made, lambda: made[0].watch.members[2].pid == 102)
    yield made
    for star in made:
        star.forget()


def _step_until(stars: list[Star], condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        for star in stars:
            star.step(0.01)


def test_an_event_reaches_everyone(stars: list[Star]) -> None:
    stars[1].tell(Event(HOSTS[1], "error", "ImageError: cannot use image"))
    _step_until(stars, lambda: all(star.watch.events for star in stars))
    assert stars[2].watch.events == [Event(HOSTS[1], "error", "ImageError: cannot use image")]


def test_a_broken_connection_is_a_death_and_a_closed_one_is_not(stars: list[Star]) -> None:
    stars[2].tell(Event(HOSTS[2], "ended"))
    stars[2].step(0)
    stars[2].close(1.0)
    _step_until(stars[:2], lambda: bool(stars[1].watch.events))
    stars[1].forget()
    _step_until(stars[:1], lambda: len(stars[0].watch.events) == 2)
    assert [(event.member.rank, event.kind) for event in stars[0].watch.events] == [(2, "ended"), (1, "died")]


def test_the_end_of_the_centre_is_noticed(stars: list[Star]) -> None:
    stars[0].forget()
    _step_until(stars[1:], lambda: all(star.watch.events for star in stars[1:]))
    assert [event.kind for event in (stars[1].watch.events + stars[2].watch.events)] == ["died", "died"]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"hello": {"token": "guess", "rank": 1, "host": "h", "pid": 1}}\n',
        b"[]\n",
        b"[" * 4000 + b"\n",
        b'"' * 4096,
    ],
    ids=["HTTP", "wrong token", "no message", "deep", "long"],
)
def test_strangers_are_sent_away(nonsense: bytes, stars: list[Star]) -> None:
    assert stars[0]._listener is not None
    stranger = connect(["127.0.0.1"], stars[0]._listener.getsockname()[1])
    stranger.sendall(nonsense)
    line = Line(stranger)
    _step_until(stars, lambda: bool(line.receive() or line.broken))
    stranger.close()
    stars[0].step(0.1)
    assert stars[0].watch.events == []
    assert stars[0].watch.members[1] == HOSTS[1]


def test_who_does_not_say_hello_is_sent_away_after_ten_seconds() -> None:
    listener, now = listen(one_machine=True), [100.0]
    watch = Watch(HOSTS[0], 2, (1,), timeout_s=45, now=now[0])
    star = Star(watch, "secret", listener=listener, clock=lambda: now[0])
    port = listener.getsockname()[1]
    silent = Line(connect(["127.0.0.1"], port))
    star.step(1.0)
    now[0] = 109.0
    member = Star(
        Watch(HOSTS[1], 2, (0,), timeout_s=45, now=now[0]),
        "secret",
        hub=connect(["127.0.0.1"], port),
        clock=star._clock,
    )
    _step_until([star, member], lambda: watch.members[1].pid == 101)
    silent.receive()
    assert not silent.broken
    now[0] = 110.5
    _step_until([star, member], lambda: bool(silent.receive() or silent.broken))
    now[0] = 120.0
    _step_until([star, member], lambda: not star._to_tell)
    assert watch.events == []
    for end in (star, member):
        end.forget()
    silent.connection.close()


def test_the_page_names_the_exit_status() -> None:
    page = Path(__file__).parents[2] / "docs" / "several-processes.md"
    assert "status 75" in page.read_text(encoding="utf-8")
