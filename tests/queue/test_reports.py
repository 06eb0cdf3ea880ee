"""Reports on deliveries: who gets which, and what stands in them."""

from dataclasses import replace
from email import message_from_bytes, message_from_string
from email.header import decode_header, make_header
from email.message import Message as Parsed

from flufl.bounce import all_failures, scan_message
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.lists.bounces import Bounce, read
from mailsrv.queue.report_text import Kind, reason
from mailsrv.queue.reports import (
    Report,
    Reporter,
    called_for,
    grouped,
    returns_whole,
)
from mailsrv.queue.values import (
    LIST,
    LOCAL,
    Answer,
    Message,
    Priority,
    Recipient,
    Result,
    State,
)

NOW = 1_795_600_000.0
DAY_S = 86400.0
HEADER = b"""\
From: Anna <anna@office.example>
To: ben@example.net
Subject: The =?utf-8?q?caf=C3=A9?= at noon
Message-ID: <three@office.example>
References: <one@office.example> <two@example.net>
"""
UNKNOWN = Answer(
    550, "5.1.1", "<ben@example.net>: no such user", NOW, "mx1.example.net [192.0.2.1]"
)
LATER = Answer(451, "4.7.1", "Greylisted", NOW, "mx1.example.net [192.0.2.1]")
TAKEN = Answer(250, "2.0.0", "Ok", NOW, "mx1.example.net [192.0.2.1]")


def message(
    reverse_path: str = "anna@office.example",
    *,
    account: str | None = "anna@office.example",
    ret: str = "",
    envid: str = "",
    smtputf8: bool = False,
    size_octets: int = 1000,
) -> Message:
    return Message(
        id="4QxY",
        file="1.M1.host",
        reverse_path=reverse_path,
        account=account,
        arrived_at_utc=NOW - DAY_S,
        priority=Priority.LETTER,
        size_octets=size_octets,
        ret=ret,
        envid=envid,
        smtputf8=smtputf8,
    )


def recipient(
    forward_path: str = "ben@example.net",
    destination: str = "example.net",
    *,
    notify: str = "",
    orcpt: str = "",
    original: str = "",
    reverse_path: str | None = None,
) -> Recipient:
    return Recipient(
        "4QxY",
        forward_path,
        destination,
        NOW,
        notify=notify,
        orcpt=orcpt,
        original=original,
        reverse_path=reverse_path,
        id=7,
    )


def failed(to: Recipient | None = None, answer: Answer = UNKNOWN) -> Result:
    return Result(to or recipient(), State.FAILED, None, answer)


def delayed(to: Recipient | None = None) -> Result:
    return Result(to or recipient(), State.WAITING, NOW + 60, LATER, warned=True)


def delivered(to: Recipient, answer: Answer = TAKEN) -> Result:
    return Result(to, State.DELIVERED, None, answer)


RELAYED = Answer(250, "2.0.0", "Ok", NOW, "mx1.example.net", relayed=True)


class CalledForTests(SynchronousTestCase):
    def test_by_default_failures_and_delays(self) -> None:
        self.assertEqual(called_for(message(), failed()), Kind.FAILED)
        self.assertEqual(called_for(message(), delayed()), Kind.DELAYED)
        local = delivered(recipient(destination=LOCAL))
        self.assertIsNone(called_for(message(), local))

    def test_never_is_never(self) -> None:
        to = recipient(notify="NEVER", destination=LOCAL)
        for result in (failed(to), delayed(to), delivered(to)):
            self.assertIsNone(called_for(message(), result))

    def test_only_what_was_asked_for(self) -> None:
        to = recipient(notify="SUCCESS,DELAY", destination=LOCAL)
        self.assertIsNone(called_for(message(), failed(to)))
        self.assertEqual(called_for(message(), delayed(to)), Kind.DELAYED)
        self.assertEqual(called_for(message(), delivered(to)), Kind.DELIVERED)
        to = recipient(notify="failure")
        self.assertEqual(called_for(message(), failed(to)), Kind.FAILED)
        self.assertIsNone(called_for(message(), delayed(to)))

    def test_no_report_on_a_report(self) -> None:
        to = recipient(notify="SUCCESS,FAILURE,DELAY")
        for result in (failed(to), delayed(to), delivered(to, RELAYED)):
            self.assertIsNone(called_for(message(""), result))
        # nor where a recipient has an empty one of its own
        result = failed(recipient(reverse_path=""))
        self.assertIsNone(called_for(message(), result))

    def test_a_success_is_told_where_the_trail_ends(self) -> None:
        to = recipient(notify="SUCCESS")
        self.assertIsNone(called_for(message(), delivered(to)))  # the peer will
        self.assertEqual(called_for(message(), delivered(to, RELAYED)), Kind.RELAYED)
        to = recipient(notify="SUCCESS", destination=LIST)
        self.assertEqual(called_for(message(), delivered(to)), Kind.DELIVERED)

    def test_a_delay_is_told_once(self) -> None:
        again = Result(recipient(), State.WAITING, NOW + 60, LATER, warned=False)
        self.assertIsNone(called_for(message(), again))

    def test_dropped_and_held_mail_is_not_told_of(self) -> None:
        for state in (State.DROPPED, State.HELD):
            result = Result(recipient(notify="SUCCESS,FAILURE"), state, None, None)
            self.assertIsNone(called_for(message(), result))

    def test_one_report_for_each_kind_and_reverse_path(self) -> None:
        results = [
            failed(recipient("a@example.net")),
            failed(recipient("b@example.net", reverse_path="list-bounces@x.example")),
            delayed(recipient("c@example.net")),
            failed(recipient("d@example.net")),
            failed(recipient("e@example.net", notify="NEVER")),
        ]
        found = [
            (kind, [result.recipient.forward_path[0] for result in group])
            for kind, group in grouped(message(), results)
        ]
        self.assertEqual(
            found,
            [(Kind.FAILED, ["a", "d"]), (Kind.FAILED, ["b"]), (Kind.DELAYED, ["c"])],
        )

    def test_whole_only_if_asked_for_small_and_failed(self) -> None:
        self.assertTrue(returns_whole(message(ret="FULL"), Kind.FAILED))
        self.assertFalse(returns_whole(message(ret="FULL"), Kind.DELAYED))
        self.assertFalse(returns_whole(message(ret="HDRS"), Kind.FAILED))
        big = message(ret="FULL", size_octets=10**6)
        self.assertFalse(returns_whole(big, Kind.FAILED))
        secret = replace(message(ret="FULL"), require_tls=True)
        self.assertFalse(returns_whole(secret, Kind.FAILED))


def write(
    kind: Kind, *results: Result, on: Message | None = None, original: bytes = HEADER
) -> Report:
    reporter = Reporter("mail.office.example", {"office.example"}.__contains__)
    on = on or message()
    return reporter.report(
        on,
        results,
        kind,
        original,
        now_utc=NOW,
        ends_at_utc=on.arrived_at_utc + 5 * DAY_S,
    )


def parts(report: Report) -> tuple[Parsed, str, list[Parsed], Parsed]:
    """The message, its text, the groups of its status, and what came back."""
    parsed = message_from_bytes(report.octets)
    text, status, back = messages(parsed)
    words = text.get_payload(decode=True)
    assert isinstance(words, bytes)
    groups = messages(status)
    if len(groups) == 1:  # Python does not know global-delivery-status
        groups.append(message_from_string(str(groups[0].get_payload())))
    return parsed, words.decode(), groups, back


def messages(parsed: Parsed) -> list[Parsed]:
    return [part for part in parsed.get_payload() if isinstance(part, Parsed)]


class ReportTests(SynchronousTestCase):
    def test_header(self) -> None:
        report = write(Kind.FAILED, failed())
        parsed, _, _, _ = parts(report)
        self.assertEqual(report.forward_path, "anna@office.example")
        self.assertEqual(parsed["To"], "<anna@office.example>")
        self.assertEqual(
            parsed["From"], "Mail Delivery System <postmaster@office.example>"
        )
        self.assertEqual(parsed["Auto-Submitted"], "auto-replied")
        self.assertEqual(parsed["In-Reply-To"], "<three@office.example>")
        self.assertEqual(
            parsed["References"].split(),
            ["<one@office.example>", "<two@example.net>", "<three@office.example>"],
        )
        subject = str(make_header(decode_header(parsed["Subject"])))
        self.assertEqual(subject, "Not delivered: The café at noon")
        self.assertEqual(parsed.get_content_type(), "multipart/report")
        self.assertEqual(parsed.get_param("report-type"), "delivery-status")
        self.assertIn("@mail.office.example>", parsed["Message-ID"])
        self.assertNotIn(b"\n", report.octets.replace(b"\r\n", b""))

    def test_status_of_a_failure(self) -> None:
        to = recipient(orcpt="rfc822;Ben+2Btag@example.net")
        on = message(envid="QQ+3D12")
        _, _, groups, back = parts(write(Kind.FAILED, failed(to), on=on))
        first, second = groups
        self.assertEqual(first["Reporting-MTA"], "dns; mail.office.example")
        self.assertEqual(first["Original-Envelope-Id"], "QQ=12")
        self.assertTrue(first["Arrival-Date"])
        self.assertEqual(second["Original-Recipient"], "rfc822; Ben+tag@example.net")
        self.assertEqual(second["Final-Recipient"], "rfc822; ben@example.net")
        self.assertEqual(second["Action"], "failed")
        self.assertEqual(second["Status"], "5.1.1")
        self.assertEqual(second["Remote-MTA"], "dns; mx1.example.net")
        self.assertEqual(
            second["Diagnostic-Code"],
            "smtp; 550 5.1.1 <ben@example.net>: no such user",
        )
        self.assertTrue(second["Last-Attempt-Date"])
        self.assertIsNone(second["Will-Retry-Until"])
        self.assertEqual(back.get_content_type(), "text/rfc822-headers")
        self.assertIn("The =?utf-8?q?caf=C3=A9?= at noon", str(back.get_payload()))

    def test_words_of_a_failure(self) -> None:
        _, text, _, _ = parts(write(Kind.FAILED, failed()))
        for words in (
            "has not been delivered",
            "ben@example.net",
            "does not exist",
            "mx1.example.net [192.0.2.1]",
            "550 5.1.1 <ben@example.net>: no such user",
            "The café at noon",
            "4QxY",
        ):
            self.assertIn(words, text)

    def test_a_delay_says_until_when(self) -> None:
        parsed, text, groups, _ = parts(write(Kind.DELAYED, delayed()))
        self.assertEqual(groups[1]["Action"], "delayed")
        self.assertEqual(groups[1]["Status"], "4.7.1")
        until = groups[1]["Will-Retry-Until"]
        self.assertIn(until, " ".join(text.split()))
        self.assertIn("need not", text)
        self.assertTrue(parsed["Subject"].startswith("=?utf-8?B?"))

    def test_several_recipients_have_a_group_each(self) -> None:
        results = [failed(recipient(f"r{i}@example.net")) for i in range(3)]
        _, text, groups, _ = parts(write(Kind.FAILED, *results))
        self.assertEqual(
            [group["Final-Recipient"] for group in groups[1:]],
            [f"rfc822; r{i}@example.net" for i in range(3)],
        )
        self.assertIn("r2@example.net", text)

    def test_one_that_ran_out_of_time_keeps_its_cause(self) -> None:
        away = Answer(451, "4.4.1", "Connection timed out", NOW)
        _, text, groups, _ = parts(write(Kind.FAILED, failed(answer=away)))
        self.assertEqual(groups[1]["Status"], "4.4.1")
        self.assertEqual(
            groups[1]["Diagnostic-Code"], "x-mailsrv; 451 4.4.1 Connection timed out"
        )
        self.assertIsNone(groups[1]["Remote-MTA"])
        self.assertIn("time for this message is over", " ".join(text.split()))

    def test_status_fits_the_action(self) -> None:
        strange = Answer(550, "2.0.0", "no", NOW, "mx.example.net")
        _, _, groups, _ = parts(write(Kind.FAILED, failed(answer=strange)))
        self.assertEqual(groups[1]["Status"], "5.0.0")
        to = recipient(notify="SUCCESS", destination=LOCAL)
        bare = Answer(250, "", "", NOW)
        _, _, groups, _ = parts(write(Kind.DELIVERED, delivered(to, bare)))
        self.assertEqual(groups[1]["Status"], "2.0.0")
        self.assertEqual(groups[1]["Action"], "delivered")

    def test_the_whole_comes_back_when_asked(self) -> None:
        on = message(ret="FULL")
        whole = HEADER + b"\nDear Ben,\n--\nAnna\n"
        _, _, _, back = parts(write(Kind.FAILED, failed(), on=on, original=whole))
        self.assertEqual(back.get_content_type(), "message/rfc822")
        (inner,) = messages(back)
        self.assertEqual(inner["Message-ID"], "<three@office.example>")
        self.assertEqual(inner.get_payload(), "Dear Ben,\r\n--\r\nAnna\r\n")

    def test_strangers_do_not_learn_where_an_alias_leads(self) -> None:
        secret = Answer(
            550, "5.1.1", "<ben@home.example> unknown", NOW, "mx.home.example"
        )
        to = recipient(
            "ben@home.example", "home.example", original="info@office.example"
        )
        on = message("carl@else.example", account=None)
        report = write(Kind.FAILED, failed(to, secret), on=on)
        self.assertNotIn(b"home.example", report.octets)
        _, text, groups, _ = parts(report)
        self.assertEqual(groups[1]["Final-Recipient"], "rfc822; info@office.example")
        self.assertIn("passed on to another one", text)
        # nor to how many it leads
        other = recipient("c@home.example", "home.example", original=to.original)
        report = write(Kind.FAILED, failed(to, secret), failed(other, secret), on=on)
        self.assertEqual(report.octets.count(b"Final-Recipient"), 1)
        # colleagues do
        _, text, _, _ = parts(write(Kind.FAILED, failed(to, secret)))
        self.assertIn("ben@home.example (behind info@office.example)", text)

    def test_to_is_the_sender_behind_an_address_of_ours(self) -> None:
        to = recipient(reverse_path="SRS0=mac=day=else.example=carl@office.example")
        on = message("carl@else.example", account=None)
        report = write(Kind.FAILED, failed(to), on=on)
        self.assertEqual(report.forward_path, to.reverse_path)
        self.assertEqual(parts(report)[0]["To"], "<carl@else.example>")

    def test_from_is_in_a_domain_of_ours(self) -> None:
        on = message("carl@else.example", account=None)
        parsed, _, _, _ = parts(write(Kind.FAILED, failed(), on=on))
        self.assertIn("<postmaster@mail.office.example>", parsed["From"])
        to = recipient("x@home.example", original="info@office.example")
        parsed, _, _, _ = parts(write(Kind.FAILED, failed(to), on=on))
        self.assertIn("<postmaster@office.example>", parsed["From"])

    def test_addresses_of_more_than_ascii(self) -> None:
        to = recipient("jürgen@example.net", orcpt=r"utf-8;j\x{FC}rgen@example.net")
        on = message("françois@office.example", smtputf8=True)
        header = "From: françois@office.example\nSubject: Grüße\n".encode()
        report = write(Kind.FAILED, failed(to), on=on, original=header)
        _, text, groups, back = parts(report)
        self.assertIn("jürgen@example.net", text)
        self.assertIn(b"message/global-delivery-status", report.octets)
        self.assertIn("Final-Recipient: utf-8; jürgen@".encode(), report.octets)
        self.assertIn("Original-Recipient: utf-8; jürgen@".encode(), report.octets)
        self.assertEqual(len(groups), 2)
        self.assertEqual(back.get_content_type(), "message/global-headers")
        self.assertIn("Grüße".encode(), report.octets)

    def test_a_report_stays_ascii_for_ascii(self) -> None:
        loud = Answer(550, "5.1.1", "Empfänger unbekannt", NOW, "mx.example.net")
        _, _, groups, _ = parts(write(Kind.FAILED, failed(answer=loud)))
        self.assertEqual(
            groups[1]["Diagnostic-Code"], r"smtp; 550 5.1.1 Empf\xe4nger unbekannt"
        )

    def test_header_shown_is_bounded(self) -> None:
        header = HEADER + b"X-Long: " + b"a" * 5000 + b"\n"
        header += b"X-Many: line\n" * 20_000
        report = write(Kind.FAILED, failed(), original=header)
        self.assertLess(len(report.octets), 40_000)
        self.assertLessEqual(max(map(len, report.octets.split(b"\r\n"))), 998)

    def test_nothing_of_the_client_makes_a_field(self) -> None:
        evil = "x+0D+0AAction:+20delivered"
        to = recipient(orcpt=f"rfc822;{evil}")
        answer = Answer(550, "5.1.1", "no\r\nAction: delivered", NOW, "mx\r\nX: y")
        report = write(Kind.FAILED, failed(to, answer), on=message(envid=evil))
        self.assertEqual(report.octets.count(b"\nAction:"), 1)
        self.assertNotIn(b"\nX: y", report.octets)
        self.assertNotIn(b"Original-Envelope-Id", report.octets)

    def test_another_program_reads_who_failed(self) -> None:
        results = [failed(recipient(f"r{i}@example.net")) for i in range(2)]
        parsed = message_from_bytes(write(Kind.FAILED, *results).octets)
        self.assertEqual(scan_message(parsed), {b"r0@example.net", b"r1@example.net"})
        parsed = message_from_bytes(write(Kind.DELAYED, delayed()).octets)
        temporary, permanent = all_failures(parsed)
        self.assertEqual((temporary, permanent), ({b"ben@example.net"}, set()))

    def test_lists_read_it_as_a_hard_bounce(self) -> None:
        octets = write(Kind.FAILED, failed()).octets
        self.assertIs(read(octets), Bounce.HARD)
        self.assertIs(read(write(Kind.DELAYED, delayed()).octets), Bounce.SOFT)

    @settings(max_examples=50, deadline=None)
    @given(
        original=st.binary(max_size=300),
        words=st.text(max_size=100),
        parameter=st.text(max_size=50),
        kind=st.sampled_from(Kind),
    )
    def test_any_octets_give_a_report(
        self, original: bytes, words: str, parameter: str, kind: Kind
    ) -> None:
        hostile = b"Subject: " + original + b"\nMessage-ID: " + original
        answer = Answer(550, parameter, words, NOW, words)
        to = recipient(orcpt=parameter, original=parameter)
        on = message(envid=parameter, ret="FULL")
        result = failed(to, answer)
        for source in (original, hostile):
            report = write(kind, result, on=on, original=source)
            parsed, _, groups, _ = parts(report)
            self.assertEqual(parsed["Auto-Submitted"], "auto-replied")
            self.assertEqual(groups[1]["Action"], kind)


class ReasonTests(SynchronousTestCase):
    def test_known_codes(self) -> None:
        for code, words in (
            ("5.1.1", "spelling"),
            ("5.1.77", "spelling"),
            ("5.1.10", "takes no mail"),
            ("5.2.2", "full"),
            ("5.3.4", "too big"),
            ("5.4.1", "could not be reached"),
            ("5.6.7", "letters"),
            ("5.7.1", "rules"),
            ("5.7.26", "DMARC"),
            ("5.7.30", "protected"),
            ("5.9.9", "does not take"),
            ("", "does not take"),
            ("5.²", "does not take"),
        ):
            self.assertIn(words, reason(Kind.FAILED, Answer(550, code, "", NOW)))

    def test_a_delay_does_not_blame_the_address(self) -> None:
        for code in ("4.1.1", "4.7.1", "4.0.0"):
            said = reason(Kind.DELAYED, Answer(450, code, "", NOW))
            self.assertIn("try again later", said)
