"""The server is killed while it sends, 20 times: each recipient is seen to."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.crash.queue_rounds import QueueRounds

ROUNDS = 20


class QueueCrashTests(SynchronousTestCase):
    def test_nothing_accepted_is_lost(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        rounds = QueueRounds(folder)
        for _ in range(ROUNDS):
            rounds.run()
        self.assertEqual(rounds.finish(), [])
        # Else the rounds prove nothing.
        self.assertGreater(len(rounds.accepted), 5 * ROUNDS)
        self.assertGreater(sum(rounds.peer.received.taken.values()), 5 * ROUNDS)
