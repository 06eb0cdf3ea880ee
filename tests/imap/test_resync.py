"""Clients with copies of mailboxes, whatever happens to their connections."""

import random
from pathlib import Path

from mailsrv.imap.server import ImapFactory
from mailsrv.store import index
from tests.imap.office import ImapCase
from tests.imap.world import STEPS, World
from tests.mailboxes.office import Office

LENGTH = 60


class WanderingCase(ImapCase):
    """RFC 7162 section 6: each client's copy comes to what the Maildir holds."""

    def world(self) -> World:
        def factory(office: Office) -> ImapFactory:
            self.office = office
            return self.factory()

        root = Path(self.mktemp())
        root.mkdir()
        return World(self, root, self.clock, factory)

    def wander(self, seed: int) -> None:
        """Take random steps; `seed` finds them again."""
        chance = random.Random(seed)
        self.patch(index, "MAX_TOMBSTONES", chance.choice((3, 10, 20_000)))
        world = self.world()
        steps = [
            (chance.choice(STEPS), chance.randrange(4), chance.randrange(1 << 16))
            for _ in range(LENGTH)
        ]
        try:
            for at in range(0, LENGTH, 20):
                world.run(steps[at : at + 20])
                world.check()
        except BaseException:
            for n, mirror in enumerate(world.mirrors):
                print(f"\n{seed=} client {n}, {mirror.kind}:")
                print("\n".join(mirror.log[-60:]))
            raise
        world.end()


class WanderingTests(WanderingCase):
    def test_copies_come_to_the_truth(self) -> None:
        for seed in range(8):
            self.wander(seed)
