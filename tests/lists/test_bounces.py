"""Which reports count against an address (RFC 3464)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.lists.bounces import Bounce, read


def report(*groups: str, kind: str = "delivery-status") -> bytes:
    fields = "\n\n".join(["Reporting-MTA: dns; mx.example.net", *groups])
    return (
        "From: MAILER-DAEMON@example.net\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\n'
        "\n"
        "--b\n\nIt did not work.\n"
        f"--b\nContent-Type: message/{kind}\n\n{fields}\n\n"
        "--b\nContent-Type: text/rfc822-headers\n\nSubject: x\n\n--b--\n"
    ).encode()


def recipient(action: str, status: str) -> str:
    final = "Final-Recipient: rfc822; a@example.org"
    return f"{final}\nAction: {action}\nStatus: {status}"


class BouncesTests(SynchronousTestCase):
    def test_actions_and_statuses(self) -> None:
        for action, status, expected in (
            ("failed", "5.1.1", Bounce.HARD),
            ("Failed", "5.0.0 (unknown)", Bounce.HARD),
            ("failed", "5.2.1", Bounce.HARD),
            ("failed", "5.2.2", Bounce.SOFT),  # the mailbox is full
            ("failed", "5.7.1", Bounce.SOFT),
            ("failed", "4.4.7", Bounce.SOFT),
            ("failed", "", Bounce.SOFT),
            ("failed", "no such user", Bounce.SOFT),
            ("delayed", "4.4.1", Bounce.SOFT),
            ("delivered", "2.0.0", Bounce.NONE),
            ("relayed", "2.0.0", Bounce.NONE),
        ):
            self.assertEqual(read(report(recipient(action, status))), expected, status)

    def test_worst_recipient_counts(self) -> None:
        two = recipient("delivered", "2.0.0"), recipient("failed", "5.1.1")
        self.assertEqual(read(report(*two)), Bounce.HARD)
        self.assertEqual(read(report(*two).replace(b"\n", b"\r\n")), Bounce.HARD)

    def test_report_in_utf8(self) -> None:
        content = report(recipient("failed", "5.1.1"), kind="global-delivery-status")
        self.assertEqual(read(content), Bounce.HARD)

    def test_what_is_no_report(self) -> None:
        for content in (
            b"",
            b"Subject: away\n\nAction: failed\nStatus: 5.1.1\n",
            report(recipient("failed", "5.1.1"), kind="disposition-notification"),
        ):
            self.assertIsNone(read(content))

    @given(st.binary(max_size=300))
    @settings(max_examples=50, deadline=None)
    def test_anything_is_read(self, noise: bytes) -> None:
        whole = report(recipient("failed", "5.1.1"))
        read(noise)
        read(whole[:60] + noise + whole[60:])
