"""MTA-STS, as strangers write it."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.tls.mta_sts import (
    MAX_AGE_S,
    BadPolicy,
    StsPolicy,
    parse_policy,
    parse_record,
)

POLICY = (
    b"version: STSv1\r\nmode: enforce\r\nmx: mail.far.test\r\nmx: *.Far.test\r\n"
    b"max_age: 604800\r\n"
)


class RecordTests(SynchronousTestCase):
    def test_records(self) -> None:
        for texts, id in (
            ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
            ([b"v=STSv1;id=1"], "1"),
            ([b"v=spf1 -all", b"v=STSv1; id=1; x=y;"], "1"),
            ([b"v=STSv1; id=1", b"v=STSv1; id=2"], None),
            ([b"v=STSv1; id="], None),
            ([b"v=STSv1; id=a-b"], None),
            ([b"v=STSv2; id=1"], None),
            ([b"V=STSv1; id=1"], None),
            ([], None),
        ):
            self.assertEqual(parse_record(texts), id, texts)


class PolicyTests(SynchronousTestCase):
    def test_policy(self) -> None:
        policy = parse_policy(POLICY)
        self.assertEqual(
            policy, StsPolicy("enforce", 604800, ("mail.far.test", "*.far.test"))
        )
        for host, allowed in (
            ("mail.far.test", True),
            ("MAIL.far.test.", True),
            ("other.far.test", True),
            ("far.test", False),
            ("a.b.far.test", False),
            ("mail.else.test", False),
        ):
            self.assertIs(policy.allows(host), allowed, host)
        self.assertEqual(parse_policy("\n".join(policy.lines).encode()), policy)

    def test_what_counts_as_none(self) -> None:
        for octets in (
            b"",
            b"version: STSv2\nmode: none\nmax_age: 1",
            b"version: STSv1\nmode: enforce\nmax_age: 1",  # no mx
            b"version: STSv1\nmode: odd\nmx: a.test\nmax_age: 1",
            b"version: STSv1\nmode: enforce\nmx: a.test",
            b"version: STSv1\nmode: enforce\nmx: *.*.test\nmax_age: 1",
            b"version: STSv1\nno colon\nmode: none\nmax_age: 1",
            b"\xff",
            b"x: " + b"y" * 70_000,
        ):
            self.assertRaises(BadPolicy, parse_policy, octets)
        longest = parse_policy(b"version: STSv1\nmode: none\nmax_age: 9999999999")
        self.assertEqual(longest.max_age_s, MAX_AGE_S)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=200))
    def test_nothing_breaks_it(self, octets: bytes) -> None:
        parse_record([b"v=STSv1;" + octets])
        try:
            parse_policy(b"version: STSv1\n" + octets)
        except BadPolicy:
            pass
