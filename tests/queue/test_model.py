"""Whatever comes in whatever order: each recipient gets a message exactly once."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailsrv.queue.database import Filter
from mailsrv.queue.schedule import Schedule
from mailsrv.queue.settling import Rules
from mailsrv.queue.values import Result, State
from tests.queue.office import QueueCase
from tests.queue.values import message, recipient, rows

DOMAINS = ("a.test", "b.test", "c.test")
PATIENT = Rules(Schedule((60, 600), 1e9), 1e9)
SENDERS = ("anna@example.test", "bert@example.test", "")

take = st.tuples(
    st.just("take"),
    st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=4),
    st.sampled_from(SENDERS),
)
step = st.one_of(
    take,
    st.tuples(st.just("answer"), st.integers(0, 20), st.sampled_from((250, 451, 421))),
    st.tuples(st.just("advance"), st.sampled_from((0, 1, 30, 90, 700)), st.none()),
    st.tuples(st.just("hold"), st.none(), st.none()),
    st.tuples(st.just("release"), st.none(), st.none()),
    st.tuples(st.just("one"), st.none(), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
    st.tuples(st.just("change"), st.integers(0, 20), st.booleans()),
    st.tuples(st.just("routes"), st.booleans(), st.none()),
)


class ModelTests(QueueCase):
    """Reads of rows may be as late as they like: jobs of the pool are held back."""

    @settings(
        max_examples=80,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(step, max_size=40))
    def test_exactly_once(self, steps: list[tuple[str, object, object]]) -> None:
        self.delivered: Counter[str] = Counter()
        self.taken: set[str] = set()
        self.changes: list[Deferred[int]] = []
        self.number = 0
        self.queue.rules = PATIENT
        self.far.way = str
        for name, first, second in steps:
            getattr(self, f"do_{name}")(first, second)
            self.settle()
            flying = [r.id for p, _ in self.far.waiting for r in p.recipients]
            self.assertEqual(len(flying), len(set(flying)))
        self.do_release(None, None)
        for _ in range(200):
            while self.far.waiting:
                self.do_answer(0, 250)
                self.settle()
            if not self.queue.database.counts().get(State.WAITING):
                break
            self.clock.advance(100)
            self.settle()
        self.assertEqual(rows(self.queue.database, Filter()), [])
        for change in self.changes:
            self.successResultOf(change)
        self.assertEqual(self.delivered, Counter(self.taken))
        self.assertEqual(self.dispatcher_rests(), (0, {}, 0, {}))

    def dispatcher_rests(self) -> object:
        dispatcher = self.queue.dispatcher
        assert dispatcher is not None
        turns = self.queue.turns
        self.assertEqual((dispatcher._in_flight, dispatcher._changing), (set(), set()))
        self.assertEqual(dispatcher._guests, {})
        return dispatcher._rows, dispatcher._lanes, turns.running, turns._offered

    def do_take(self, domains: list[str], sender: str) -> None:
        self.number += 1
        id = f"m{id_of(self)}{self.number}"
        sent = message(
            id,
            file=self.spooled(b"\ntext\n"),
            size_octets=8,
            reverse_path=sender,
            arrived_at_utc=self.clock.seconds(),
        )
        to = [
            recipient(f"r{n}.{id}@{domain}", id, next_at_utc=self.clock.seconds())
            for n, domain in enumerate(domains)
        ]
        held, self.threads.read_jobs.held = self.threads.read_jobs.held, False
        self.take(sent, to)
        self.threads.read_jobs.held = held
        self.taken |= {r.forward_path for r in to}

    def do_answer(self, which: int, code: int) -> None:
        waiting = self.far.waiting
        if not waiting:
            return
        index = which % len(waiting)
        waiting.insert(0, waiting.pop(index))
        parcel = self.far.answer(code)
        if code == 250:
            self.delivered.update(r.forward_path for r in parcel.recipients)

    def do_advance(self, seconds: int, _: object) -> None:
        self.clock.advance(seconds)

    def do_hold(self, _: object, __: object) -> None:
        self.threads.read_jobs.held = True

    def do_one(self, _: object, __: object) -> None:
        if self.threads.read_jobs.jobs:
            self.threads.read_jobs.step()

    def do_release(self, _: object, __: object) -> None:
        self.threads.read_jobs.release()
        self.settle()

    def do_routes(self, smarthost: bool, _: object) -> None:
        """The settings are changed: all mail goes one way, or each domain's its own."""
        self.far.way = (lambda destination: "smarthost") if smarthost else str

    def do_restart(self, _: object, __: object) -> None:
        self.do_release(None, None)
        stopping = Deferred.fromCoroutine(self.queue.stop())
        self.settle()
        while self.far.waiting:
            self.do_answer(0, 451)
            self.settle()
        self.successResultOf(stopping)
        self.queue = self.opened()
        self.queue.rules = PATIENT
        self.start()

    def do_change(self, which: int, later: bool) -> None:
        """An admin has a recipient tried again, now or later; reads may be late."""
        found = self.queue.database.find(Filter(state=State.WAITING))
        if found:
            row = found[which % len(found)]
            at = self.clock.seconds() + 50 * later
            changing = self.queue.change(
                [row], lambda _, r: Result(r, State.WAITING, at, None, attempted=False)
            )
            self.changes.append(Deferred.fromCoroutine(changing))


def id_of(case: ModelTests) -> str:
    """Tell examples of one test apart: they share a queue."""
    return f"{id(case.taken):x}."
