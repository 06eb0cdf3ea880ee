"""Reverse-paths of forwarded mail, and the way back."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.database import MemoryAccountDatabase
from mailsrv.accounts.live import LiveDirectory
from mailsrv.routing.router import Destination, Local, Outside, Router, Unknown
from mailsrv.routing.srs import Srs, is_srs
from tests.inline_threads import InlineThreads
from tests.routing.test_router import office

DAY_S = 86400
OURS = "office.example"
OTHER = "fwd.example"


class SrsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1_795_600_000.0
        self.srs = Srs(b"k" * 32, lambda: self.now)

    def forward(self, reverse_path: str) -> str:
        address = self.srs.forward(reverse_path, OURS)
        assert address is not None
        return address

    def back(self, address: str) -> str | None:
        local, _, domain = address.rpartition("@")
        self.assertEqual(domain, OURS)
        self.assertTrue(is_srs(local))
        return self.srs.back(local)

    def test_there_and_back(self) -> None:
        address = self.forward("Carl.List=x@Else.example")
        self.assertRegex(
            address,
            r"^SRS0=[a-z2-7]{16}=[a-z2-7]{2}=Else\.example=Carl\.List=x@office.example$",
        )
        self.assertEqual(self.back(address), "Carl.List=x@Else.example")

    def test_an_everyday_address_stays_within_64_octets(self) -> None:
        local = self.forward("firstname.lastname@company.example").rpartition("@")[0]
        self.assertLessEqual(len(local), 64)

    def test_case_may_be_lost(self) -> None:
        address = self.forward("carl@else.example")
        self.assertEqual(self.back(address.lower()), "carl@else.example")
        upper = address.rpartition("@")[0].upper() + "@" + OURS
        self.assertEqual(self.back(upper), "CARL@ELSE.EXAMPLE")

    def test_forged_ones_lead_nowhere(self) -> None:
        address = self.forward("carl@else.example")
        for old, new in (
            ("else.example", "victim.example"),
            ("=carl", "=dora"),
            ("SRS0=", "SRS0=a"),
            ("SRS0", "SRS1"),
            ("=else", "else"),
        ):
            self.assertIsNone(self.back(address.replace(old, new, 1)), new)
        self.assertIsNone(Srs(b"j" * 32, lambda: self.now).back(address.split("@")[0]))
        for junk in ("SRS0=", "SRS0====", "SRS1=a=b", "srs0=aa=a=b=c"):
            self.assertIsNone(self.srs.back(junk))

    def test_they_end_after_three_weeks(self) -> None:
        address = self.forward("carl@else.example")
        self.now += 20 * DAY_S
        self.assertEqual(self.back(address), "carl@else.example")
        self.now += 2 * DAY_S
        self.assertIsNone(self.back(address))
        self.now -= 23 * DAY_S  # before it was made
        self.assertIsNone(self.back(address))

    def test_days_begin_again_after_a_cycle(self) -> None:
        self.now = 1023.9 * DAY_S
        address = self.forward("carl@else.example")
        self.now = 1025.1 * DAY_S
        self.assertEqual(self.back(address), "carl@else.example")

    def test_forwarded_by_others_before(self) -> None:
        # Straight back to the first one, however many there are.
        second = self.forward(f"SRS0=abcd=2X=else.example=carl@{OTHER}")
        self.assertRegex(second, rf"^SRS1=[a-z2-7]{{16}}={OTHER}==abcd=2X=else")
        back = f"SRS0=abcd=2X=else.example=carl@{OTHER}"
        self.assertEqual(self.back(second), back)
        third = self.forward(
            "SRS1=wxyz=fwd.example==abcd=2X=else.example=carl@x.example"
        )
        self.assertEqual(self.back(third), back)
        plus = self.forward(f"SRS0+abcd=2X=else.example=carl@{OTHER}")
        self.assertEqual(self.back(plus), f"SRS0+abcd=2X=else.example=carl@{OTHER}")

    def test_nothing_stands_for_no_sender(self) -> None:
        self.assertIsNone(self.srs.forward("", OURS))
        self.assertIsNone(self.srs.forward("a" * 250 + "@else.example", OURS))

    @settings(max_examples=50, deadline=None)
    @given(st.text(min_size=1, max_size=60))
    def test_any_local_part_comes_back(self, local: str) -> None:
        quoted = local.replace("\\", "\\\\").replace('"', '\\"')
        address = self.srs.forward(f'"{quoted}"@else.example', OURS)
        if address is not None and not local.upper().startswith("SRS"):
            found = self.back(address)
            assert found is not None
            name = found.rpartition("@")[0]
            self.assertIn(name, (local, f'"{quoted}"'))
        self.srs.back(local)


class RouterTests(SynchronousTestCase):
    def setUp(self) -> None:
        threads = InlineThreads()
        database = MemoryAccountDatabase()
        database.edit(lambda _: office())
        live = LiveDirectory(database, threads=threads, reactor=threads.clock)
        live.start()
        self.addCleanup(live.stop)
        self.router = Router(live, (), Srs(b"k" * 32, lambda: 0.0))

    def resolve(self, forward_path: str) -> Destination:
        return self.successResultOf(
            Deferred.fromCoroutine(self.router.resolve(forward_path))
        )

    def test_what_fails_comes_back_to_the_sender(self) -> None:
        for sender in ("carl@else.example", "c" * 64 + "@else.example"):
            path = self.router.forwarder(sender, "info@example.test")
            assert path is not None
            self.assertTrue(path.endswith("@example.test"))
            self.assertEqual(self.resolve(path), Local(path, outside=(sender,)))

    def test_forged_ones_are_unknown(self) -> None:
        path = "SRS0=aaaaaaaaaaaaaaaa=aa=victim.example=carl@example.test"
        self.assertIsInstance(self.resolve(path), Unknown)
        path = path.replace("@example.test", "@else.example")
        self.assertIsInstance(self.resolve(path), Outside)

    def test_own_senders_and_reports_stay_as_they_are(self) -> None:
        for sender in ("", "anna@example.test"):
            self.assertIsNone(self.router.forwarder(sender, "info@example.test"))

    def test_the_bare_postmaster_has_a_domain_too(self) -> None:
        path = self.router.forwarder("carl@else.example", "postmaster")
        assert path is not None
        self.assertTrue(path.endswith("@example.test"))
