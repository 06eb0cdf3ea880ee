"""Slots are given out fairly."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.queue.concurrency import FIRST, Window
from mailsrv.queue.turns import Turns
from mailsrv.queue.values import Lane, Priority


def lane(
    sender: str = "anna", to: str = "far.test", priority: Priority = Priority.LETTER
) -> Lane:
    return Lane(priority, to, sender)


class TurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = Turns(8, 20)

    def offer(self, *lanes: Lane) -> None:
        for one in lanes:
            self.turns.offer(one, one.destination)

    def taken(self) -> list[Lane]:
        """Take until nobody gets a slot any more."""
        lanes = []
        while (turn := self.turns.take()) is not None:
            lanes.append(turn[0])
        return lanes

    def test_senders_take_turns(self) -> None:
        many = [lane("anna", f"{n}.test") for n in range(3)]
        self.offer(*many, lane("bert", "b.test"), lane("carl", "c.test"))
        order = [one.sender for one in self.taken()]
        self.assertEqual(order, ["anna", "bert", "carl", "anna", "anna"])

    def test_reports_letters_bulk(self) -> None:
        self.offer(*(lane(to=f"{p}.test", priority=p) for p in reversed(Priority)))
        self.assertEqual([one.priority for one in self.taken()], list(Priority))

    def test_offered_twice_taken_once(self) -> None:
        self.offer(lane(), lane())
        self.assertEqual(self.taken(), [lane()])

    def test_no_more_slots_than_there_are(self) -> None:
        lanes = [lane(to=f"{n}.test") for n in range(9)]
        self.offer(*lanes)
        self.assertEqual(self.taken(), lanes[:8])
        self.turns.end(lanes[0], "0.test", True)
        self.assertEqual(self.taken(), lanes[8:])

    def test_bulk_leaves_room_for_letters(self) -> None:
        bulk = [lane("news", f"{n}.test", Priority.BULK) for n in range(9)]
        self.offer(*bulk)
        self.assertEqual(self.taken(), bulk[:6])
        letters = [lane(to=f"l{n}.test") for n in range(9)]
        self.offer(*letters)
        self.assertEqual(self.taken(), letters[:8])

    def test_slow_servers_of_one_sender_hold_up_no_other(self) -> None:
        """They may take minutes to say a word, each of them."""
        slow = [lane("anna", f"{n}.test") for n in range(20)]
        self.offer(*slow)
        self.assertEqual(self.taken(), slow[:8])
        others = [lane(name, f"{name}.test") for name in ("bert", "carl", "dora")]
        self.offer(*others)
        self.assertEqual(self.taken(), others[:2])
        self.offer(lane("bert", "second.test"))
        self.assertEqual(self.taken(), [])
        self.turns.end(others[0], "bert.test", True)
        self.assertEqual(self.taken(), others[2:])
        self.turns.end(slow[0], "0.test", False)
        self.assertEqual(self.taken(), [lane("bert", "second.test")])
        for one in slow[1:3]:
            self.turns.end(one, one.destination, False)
            self.assertEqual(self.taken(), [])
        self.turns.end(slow[3], "3.test", False)
        self.assertEqual(self.taken(), [slow[8]])

    def test_newsletters_get_none_of_what_is_kept_for_others(self) -> None:
        self.offer(*(lane("anna", f"{n}.test") for n in range(9)))
        self.assertEqual(len(self.taken()), 8)
        self.offer(lane("news", "n.test", Priority.BULK))
        self.assertEqual(self.taken(), [])

    def test_a_route_has_few_slots_at_first(self) -> None:
        lanes = [lane(f"sender{n}") for n in range(7)]
        self.offer(*lanes)
        self.assertEqual(self.taken(), lanes[:FIRST])
        self.turns.end(lanes[0], "far.test", None)
        self.assertEqual(self.taken(), [lanes[5]])
        self.turns.end(lanes[1], "far.test", None)
        self.assertEqual(self.taken(), [lanes[6]])

    def test_bulk_of_a_route_does_not_count_for_letters(self) -> None:
        bulk = [lane(f"news{n}", priority=Priority.BULK) for n in range(5)]
        self.offer(*bulk)
        self.assertEqual(len(self.taken()), 3)
        letters = [lane(f"sender{n}") for n in range(5)]
        self.offer(*letters)
        self.assertEqual(self.taken(), letters)

    def test_all_that_was_parked_comes_to_its_turn(self) -> None:
        lanes = [lane(f"sender{n}") for n in range(30)]
        self.offer(*lanes)
        seen = running = self.taken()
        while running:
            self.turns.end(running[0], "far.test", False)
            running = running[1:] + (more := self.taken())
            seen = seen + more
        self.assertEqual(seen, lanes)
        self.assertEqual(self.turns.running, 0)


class WindowTests(SynchronousTestCase):
    def test_grows_and_shrinks_within_its_bounds(self) -> None:
        window = Window(7)
        for _ in range(100):
            window.succeeded()
        self.assertEqual(window.size, 7)
        for _ in range(100):
            window.failed()
        self.assertEqual(window.size, 1)

    def test_one_more_after_as_many_good_ones(self) -> None:
        window = Window(20)
        for _ in range(FIRST + 1):
            window.succeeded()
        self.assertEqual(window.size, FIRST + 1)
