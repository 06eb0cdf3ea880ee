"""Address lists, sound and otherwise."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.address import MAX_ADDRESSES, Address, addresses

A = Address

LISTS: list[tuple[bytes, list[Address]]] = [
    # RFC 5322 appendix A
    (
        b"John Doe <jdoe@machine.example>",
        [A(b"John Doe", None, b"jdoe", b"machine.example")],
    ),
    (
        b'"Joe Q. Public" <john.q.public@example.com>',
        [A(b"Joe Q. Public", None, b"john.q.public", b"example.com")],
    ),
    (
        b"Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>",
        [
            A(b"Mary Smith", None, b"mary", b"x.test"),
            A(None, None, b"jdoe", b"example.org"),
            A(b"Who?", None, b"one", b"y.test"),
        ],
    ),
    (
        b'<boss@nil.test>, "Giant; \\"Big\\" Box" <sysservices@example.net>',
        [
            A(None, None, b"boss", b"nil.test"),
            A(b'Giant; "Big" Box', None, b"sysservices", b"example.net"),
        ],
    ),
    (
        b"A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;",
        [
            A(None, None, b"A Group", None),
            A(b"Ed Jones", None, b"c", b"a.test"),
            A(None, None, b"joe", b"where.test"),
            A(b"John", None, b"jdoe", b"one.test"),
            A(None, None, None, None),
        ],
    ),
    (
        b"Undisclosed recipients:;",
        [A(None, None, b"Undisclosed recipients", None), A(None, None, None, None)],
    ),
    (
        b"Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
        [A(b"Pete", None, b"pete", b"silly.test")],
    ),
    (
        b"A Group(Some people)\r\n    :Chris Jones <c@(Chris's host.)public.example>,"
        b"\r\n joe@example.org;",
        [
            A(None, None, b"A Group", None),
            A(b"Chris Jones", None, b"c", b"public.example"),
            A(None, None, b"joe", b"example.org"),
            A(None, None, None, None),
        ],
    ),
    (
        b"Mary Smith <@node.test:mary@example.net>, , jdoe@test . example",
        [
            A(b"Mary Smith", b"@node.test", b"mary", b"example.net"),
            A(None, None, b"jdoe", b"test.example"),
        ],
    ),
    # What else there is
    (b"<@a,@b:c@d>", [A(None, b"@a,@b", b"c", b"d")]),
    (b"pete@silly.test (Pete)", [A(b"Pete", None, b"pete", b"silly.test")]),
    (b'"a b"@c.test', [A(None, None, b"a b", b"c.test")]),
    (b"a@[127.0.0.1]", [A(None, None, b"a", b"[127.0.0.1]")]),
    (b"Jo @ Home <jo@x>", [A(b"Jo @ Home", None, b"jo", b"x")]),
    (b"just words", [A(None, None, b"just words", b"")]),
    (b"Foo <bar>", [A(b"Foo", None, b"bar", b"")]),
    (b"Foo <a@b> trailing", [A(b"Foo", None, b"a", b"b")]),
    (b"Foo <a@b", [A(b"Foo", None, b"a", b"b")]),
    (b'"Foo <a@b>', [A(None, None, b"Foo <a@b>", b"")]),
    (b"(never ended a@b", []),
    (
        b"Group: a@b",
        [A(None, None, b"Group", None), A(None, None, b"a", b"b"), A(*[None] * 4)],
    ),
    (b"=?utf-8?Q?J=C3=B6?= <j@x>", [A(b"=?utf-8?Q?J=C3=B6?=", None, b"j", b"x")]),
    (b"J\xc3\xb6 <j\xc3\xb6@x>", [A(b"J\xc3\xb6", None, b"j\xc3\xb6", b"x")]),
    (b"a@b; c@d", [A(None, None, b"a", b"b"), A(None, None, b"c", b"d")]),  # Outlook
    (b"<>", []),
    (b'"" <>', []),
    (b" , ,", []),
    (b"", []),
]


class AddressTests(SynchronousTestCase):
    def test_lists(self) -> None:
        for value, expected in LISTS:
            self.assertEqual(addresses(value), expected, value)

    def test_cap(self) -> None:
        self.assertEqual(len(addresses(b"a@b, " * 3 * MAX_ADDRESSES)), MAX_ADDRESSES)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [b'"', b"\\", b"(", b")", b"<", b">", b"@", b":", b";", b","]
            )
            | st.sampled_from([b"a", b" ", b"\n ", b"[", b"]", b".", b"\xff", b"\0"]),
            max_size=25,
        ).map(b"".join)
    )
    def test_any_octets_are_a_list_with_groups_ended(self, value: bytes) -> None:
        inside = False
        for address in addresses(value):
            if address.host is None:
                self.assertEqual(address.mailbox is None, inside)
                inside = not inside
            else:
                self.assertIsNotNone(address.mailbox)
        self.assertFalse(inside)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.none()
                | st.from_regex(
                    rb"[A-Za-z]{1,8}( [A-Z][a-z]{0,5}\.?)?", fullmatch=True
                ),
                st.from_regex(rb"[a-z0-9+]{1,9}(\.[a-z]{1,4})?", fullmatch=True),
                st.from_regex(rb"[a-z0-9]{1,9}(\.[a-z]{1,4}){0,2}", fullmatch=True),
            ),
            max_size=6,
        )
    )
    def test_what_is_written_is_read(
        self, people: list[tuple[bytes | None, bytes, bytes]]
    ) -> None:
        value = b",\r\n ".join(
            b"%b <%b@%b>" % (name, local, host) if name else b"%b@%b" % (local, host)
            for name, local, host in people
        )
        expected = [A(name, None, local, host) for name, local, host in people]
        self.assertEqual(addresses(value), expected)
