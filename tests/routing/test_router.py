"""Recipients to accounts."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import InvalidAddress
from mailsrv.accounts.database import MemoryAccountDatabase
from mailsrv.accounts.directory import Directory
from mailsrv.accounts.live import LiveDirectory
from mailsrv.routing.router import (
    Disabled,
    Local,
    Outside,
    Router,
    Unknown,
    resolve,
)
from tests.inline_threads import InlineThreads

ANNA, BERT = "anna@example.test", "bert@example.test"
CARL = "carl@xn--bcher-kva.example"


def office() -> Directory:
    directory = edits.add_domain(Directory(), "example.test")
    directory = edits.add_domain(directory, "bücher.example")
    for name in (ANNA, BERT, CARL):
        directory = edits.add_account(directory, name, "hash")
    directory = edits.add_alias(directory, "info@example.test", [ANNA])
    return edits.add_group(
        directory, "staff@example.test", ["info@example.test", ANNA, BERT]
    )


class ResolveCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.office = office()

    def names(self, forward_path: str) -> list[str]:
        found = resolve(self.office, forward_path)
        assert isinstance(found, Local), found
        return [account.name for account in found.accounts]

    def disable(self, *names: str) -> None:
        for name in names:
            self.office = edits.set_enabled(self.office, name, False)


class ResolveTests(ResolveCase):
    def test_local(self) -> None:
        for forward_path, names in (
            (ANNA, [ANNA]),
            ("ANNA+x@EXAMPLE.test", [ANNA]),
            ("info@example.test", [ANNA]),
            ("staff@example.test", [ANNA, BERT]),
            ("staff+x@example.test", [ANNA, BERT]),
            ("carl@bücher.example", [CARL]),
            ("carl@XN--BCHER-KVA.example", [CARL]),
        ):
            self.assertEqual(self.names(forward_path), names, forward_path)

    def test_address_for_delivered_to(self) -> None:
        found = resolve(self.office, "Anna+X@EXAMPLE.test")
        self.assertEqual(getattr(found, "address", None), "Anna+X@example.test")

    def test_outside(self) -> None:
        for forward_path in ("anna@other.test", "anna@[192.0.2.1]"):
            self.assertEqual(resolve(self.office, forward_path), Outside(forward_path))

    def test_unknown(self) -> None:
        name = "nobody@example.test"
        self.assertEqual(resolve(self.office, name), Unknown(name))

    def test_no_address(self) -> None:
        with self.assertRaises(InvalidAddress):
            resolve(self.office, "anna")

    def test_catch_all(self) -> None:
        self.office = edits.set_catch_all(self.office, "example.test", BERT)
        self.assertEqual(self.names("nobody@example.test"), [BERT])
        self.assertEqual(self.names(ANNA), [ANNA])
        self.assertIsInstance(resolve(self.office, "x@bücher.example"), Unknown)

    def test_disabled(self) -> None:
        self.disable(ANNA)
        self.assertEqual(resolve(self.office, ANNA), Disabled(ANNA))
        self.assertEqual(self.names("staff@example.test"), [BERT])
        self.disable(BERT)
        self.assertIsInstance(resolve(self.office, "staff@example.test"), Disabled)


class PostmasterTests(ResolveCase):
    """RFC 5321 section 4.5.1."""

    def test_oldest_account_of_the_domain_if_nothing_is_set(self) -> None:
        self.assertEqual(self.names("postmaster"), [ANNA])
        self.assertEqual(self.names("PostMaster@example.test"), [ANNA])
        self.assertEqual(self.names("postmaster@bücher.example"), [CARL])

    def test_what_is_set_comes_first(self) -> None:
        name = "postmaster@bücher.example"
        self.office = edits.add_alias(self.office, name, [BERT])
        self.assertEqual(self.names(name), [BERT])
        self.assertEqual(self.names("Postmaster"), [BERT])

    def test_domain_without_accounts(self) -> None:
        self.office = edits.add_domain(self.office, "empty.test")
        self.assertEqual(self.names("postmaster@empty.test"), [ANNA])

    def test_disabled_postmaster_is_passed_over(self) -> None:
        name = "postmaster@example.test"
        self.office = edits.add_alias(self.office, name, [ANNA])
        self.disable(ANNA)
        self.assertEqual(self.names(name), [BERT])
        self.assertEqual(self.names("postmaster"), [BERT])

    def test_nobody_at_all(self) -> None:
        self.disable(ANNA, BERT, CARL)
        self.assertIsInstance(resolve(self.office, "postmaster"), Unknown)


class RouterTests(SynchronousTestCase):
    def setUp(self) -> None:
        threads = InlineThreads()
        self.database = MemoryAccountDatabase()
        live = LiveDirectory(self.database, threads=threads, reactor=threads.clock)
        live.start()
        self.addCleanup(live.stop)
        self.live = live
        self.router = Router(live)

    def test_address_added_just_now(self) -> None:
        self.database.edit(lambda _: office())
        found = self.successResultOf(
            Deferred.fromCoroutine(self.router.resolve("info@example.test"))
        )
        self.assertIsInstance(found, Local)

    def test_sender_address_added_just_now(self) -> None:
        self.database.edit(lambda _: office())
        anna = self.database.snapshot().account(ANNA)
        assert anna is not None
        for address, expected in (("info@example.test", True), (BERT, False)):
            may = self.router.may_send_as(anna, address)
            self.assertIs(self.successResultOf(Deferred.fromCoroutine(may)), expected)
