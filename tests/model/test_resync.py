"""As tests.imap.test_resync, for minutes."""

from tests.imap.test_resync import WanderingCase


class LongWanderingTests(WanderingCase):
    timeout = 900

    def test_copies_come_to_the_truth(self) -> None:
        for seed in range(1000, 1150):
            self.wander(seed)
