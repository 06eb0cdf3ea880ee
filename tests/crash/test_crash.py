"""The server is killed under load, 20 times: what was acknowledged must stand."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.crash.rounds import Rounds

ROUNDS = 20


class CrashTests(SynchronousTestCase):
    def test_nothing_acknowledged_is_lost_or_doubled_by_a_kill(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        rounds = Rounds(folder)
        faults = [fault for _ in range(ROUNDS) for fault in rounds.run()]
        self.assertEqual(faults, [])
        # Else the rounds prove nothing.
        self.assertGreater(rounds.state.commands, 10 * ROUNDS)
