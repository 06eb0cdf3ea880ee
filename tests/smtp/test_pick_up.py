"""What is dropped, and who is told of what is refused."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from mailsrv.queue.values import Message, Result
from mailsrv.settings import SendmailSettings
from mailsrv.smtp import drop, local_users
from mailsrv.smtp.drop import Dropped
from mailsrv.smtp.local_users import LocalUsers
from mailsrv.smtp.pick_up import PickUp
from tests.smtp.office import ANNA, BERT, OfficeCase

CONTENT = b"From: anna@example.test\r\n\r\nhello\r\n"


class PickUpTests(OfficeCase):
    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        drop.make(self.folder)
        self.told: list[tuple[str, list[str]]] = []
        clock: Any = self.clock
        self.users = LocalUsers(
            SendmailSettings(drop=self.folder),
            self.database.snapshot,
            self.threads,
        )
        self.pick_up = PickUp(
            self.folder,
            self.users,
            self.factory("submission"),
            self.report,
            self.threads,
            clock,
        )

    async def report(
        self, message: Message, results: Sequence[Result], start: bytes
    ) -> None:
        told = [result.recipient.forward_path for result in results]
        self.told.append((message.reverse_path, told))

    def look(self, *dropped: Dropped) -> None:
        for each in dropped:
            each.write(self.folder, io.BytesIO(CONTENT))
        self.successResultOf(Deferred.fromCoroutine(self.pick_up.look()))

    def test_taken(self) -> None:
        self.look(Dropped(ANNA, (BERT,)))
        [message] = self.store.messages
        self.assertTrue(message.octets.endswith(b"\r\nhello\r\n"))
        self.assertEqual((self.told, list(self.folder.iterdir())), ([], []))

    def test_recipient_who_is_refused(self) -> None:
        self.look(Dropped(ANNA, (BERT, "nobody@example.test")))
        self.assertEqual(self.told, [(ANNA, ["nobody@example.test"])])
        self.assertEqual(len(self.store.messages), 1)

    def test_what_is_to_be_told_goes_with_it(self) -> None:
        self.look(Dropped(ANNA, ("a@else.test",), "SUCCESS,DELAY", "HDRS", "e1"))
        [(message, [row], _)] = self.queue.taken
        self.assertEqual(
            (row.notify, message.ret, message.envid), ("SUCCESS,DELAY", "HDRS", "e1")
        )

    def test_who_wants_to_hear_nothing_hears_nothing(self) -> None:
        self.look(Dropped(ANNA, (BERT, "nobody@example.test"), "NEVER"))
        self.assertEqual((self.told, list(self.folder.iterdir())), ([], []))
        self.assertEqual(len(self.store.messages), 1)

    def test_what_cannot_be_opened_now_is_opened_later(self) -> None:
        Dropped(ANNA, (BERT,)).write(self.folder, io.BytesIO(CONTENT))
        opened = drop.open_dropped

        def fails(path: Path) -> drop.Found:
            raise OSError(24, "Too many open files")

        self.patch(drop, "open_dropped", fails)
        self.look()
        self.look()
        self.assertEqual(self.store.messages, [])
        self.patch(drop, "open_dropped", opened)
        self.look()
        self.assertEqual(len(self.store.messages), 1)
        told = [e for e in self.events if "cannot be sent" in str(e["log_format"])]
        self.assertEqual(len(told), 1)
        self.assertEqual(self.pick_up._strange, set())

    def test_sender_who_is_refused_is_not_told(self) -> None:
        self.patch(local_users, "_name", lambda uid: "backup")
        self.look(Dropped("victim@else.test", (BERT,)))
        self.assertEqual(self.told, [("backup@example.test", [BERT])])

    def test_user_whose_name_is_no_address(self) -> None:
        self.patch(local_users, "_name", lambda uid: "a b")
        self.look(Dropped("victim@else.test", (BERT,)))
        self.assertEqual(self.told, [("postmaster@example.test", [BERT])])

    def test_one_that_fails_keeps_nobody_waiting(self) -> None:
        """The oldest one fails for a reason of ours; the next one is taken."""
        report, failing = self.report, True

        async def fails(*arguments: Any) -> None:
            if failing:
                raise RuntimeError
            await report(*arguments)

        self.pick_up._report = fails
        self.look(Dropped(ANNA, ("nobody@example.test",)), Dropped(ANNA, (BERT,)))
        self.assertEqual(len(self.store.messages), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(list(self.folder.iterdir())), 1)
        failing = False
        self.look()
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertEqual(self.told, [(ANNA, ["nobody@example.test"])])

    def test_report_that_fails_does_not_send_again(self) -> None:
        async def fails(*_: Any) -> None:
            raise RuntimeError

        self.pick_up._report, report = fails, self.report
        self.look(Dropped(ANNA, (BERT, "nobody@example.test")))
        self.look()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.pick_up._report = report
        self.look()
        self.assertEqual(len(self.store.messages), 1)
        self.assertEqual(self.told, [(ANNA, ["nobody@example.test"])])
        self.assertEqual(self.pick_up._ended, {})

    def test_what_grows_meanwhile_is_sent_as_it_was(self) -> None:
        path = Dropped(ANNA, (BERT,)).write(self.folder, io.BytesIO(CONTENT))
        opened = drop.open_dropped

        def grows(found: Path) -> drop.Found:
            result = opened(found)
            with path.open("ab") as file:
                file.write(b"more\r\n")
            return result

        self.patch(drop, "open_dropped", grows)
        self.look()
        [message] = self.store.messages
        self.assertTrue(message.octets.endswith(b"\r\nhello\r\n"))
