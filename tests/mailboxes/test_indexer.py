"""When deliveries reach the index."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mailboxes.indexer import UNWATCHED_S, WATCHED_S, Indexer
from mailsrv.store.values import Delivered, Target


def copy(name: bytes) -> Delivered:
    return Delivered(Target("anna"), name, name, True, 1, 1, 0, 0)


class IndexerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.jobs: list[dict[str, list[bytes]]] = []
        self.running: list[Deferred[None]] = []
        self.indexer = Indexer(self.clock, self.ingest)

    async def ingest(self, waiting: dict[str, list[Delivered]]) -> None:
        self.jobs.append({k: [one.base for one in v] for k, v in waiting.items()})
        self.running.append(Deferred())
        await self.running[-1]

    def end(self) -> None:
        self.running.pop().callback(None)

    def test_watched_mailbox_is_indexed_at_once(self) -> None:
        self.indexer.add("INBOX", copy(b"1"), watched=True)
        self.clock.advance(WATCHED_S)
        self.assertEqual(self.jobs, [{"INBOX": [b"1"]}])
        self.assertLess(WATCHED_S, 0.02)

    def test_unwatched_ones_gather(self) -> None:
        self.indexer.add("INBOX", copy(b"1"), watched=False)
        self.clock.advance(UNWATCHED_S / 2)
        self.indexer.add("Junk", copy(b"2"), watched=False)
        self.assertEqual(self.jobs, [])
        self.clock.advance(UNWATCHED_S / 2)
        self.assertEqual(self.jobs, [{"INBOX": [b"1"], "Junk": [b"2"]}])

    def test_watched_one_takes_the_others_along(self) -> None:
        self.indexer.add("Junk", copy(b"1"), watched=False)
        self.indexer.add("INBOX", copy(b"2"), watched=True)
        self.clock.advance(WATCHED_S)
        self.assertEqual(self.jobs, [{"Junk": [b"1"], "INBOX": [b"2"]}])

    def test_what_comes_during_a_job_makes_the_next(self) -> None:
        self.indexer.add("INBOX", copy(b"1"), watched=True)
        self.clock.advance(WATCHED_S)
        self.indexer.add("INBOX", copy(b"2"), watched=True)
        self.indexer.add("INBOX", copy(b"3"), watched=True)
        self.clock.advance(UNWATCHED_S)
        self.assertEqual(len(self.jobs), 1)
        self.end()
        self.clock.advance(WATCHED_S)
        self.assertEqual(self.jobs[1], {"INBOX": [b"2", b"3"]})

    def test_flush_waits_for_all(self) -> None:
        self.indexer.add("INBOX", copy(b"1"), watched=True)
        self.clock.advance(WATCHED_S)
        self.indexer.add("INBOX", copy(b"2"), watched=False)
        flushed = Deferred.fromCoroutine(self.indexer.flush())
        self.end()
        self.assertNoResult(flushed)
        self.assertEqual(len(self.jobs), 2)
        self.end()
        self.successResultOf(flushed)
        self.assertFalse(self.indexer.busy)
        self.assertEqual(self.clock.getDelayedCalls(), [])
