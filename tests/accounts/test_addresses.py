"""The grammar of addresses and their canonical form."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.addresses import (
    Address,
    InvalidAddress,
    canonical_domain,
    fold,
    parse,
    quote,
    shown,
)


class ParseTests(SynchronousTestCase):
    def test_canonical_forms(self) -> None:
        for text, canonical in (
            ("anna@example.test", "anna@example.test"),
            ("Anna.B@Example.TEST", "anna.b@example.test"),
            ('"anna"@example.test', "anna@example.test"),
            (r'"an\na"@example.test', "anna@example.test"),
            ('"Anna B"@example.test', '"anna b"@example.test'),
            (r'"a\"b\\"@example.test', r'"a\"b\\"@example.test'),
            ('"a@b"@example.test', '"a@b"@example.test'),
            ("JÖRG@example.test", "jörg@example.test"),
            ("jo\u0308rg@example.test", "jörg@example.test"),
            ("anna@Bücher.example", "anna@xn--bcher-kva.example"),
            ("anna@XN--Bcher-kva.example", "anna@xn--bcher-kva.example"),
            ("anna@straße.example", "anna@xn--strae-oqa.example"),
            ("anna@例え。テスト", "anna@xn--r8jz45g.xn--zckzah"),
            ("anna@a_b.example", "anna@a_b.example"),
            ("anna@[192.0.2.1]", "anna@[192.0.2.1]"),
            ("anna@[ipv6:2001:DB8::1]", "anna@[IPv6:2001:db8::1]"),
            ("a+b/c=d!#$%&'*?^_`{|}~@x", "a+b/c=d!#$%&'*?^_`{|}~@x"),
        ):
            self.assertEqual(parse(text).canonical, canonical, text)

    def test_local_part_keeps_its_case(self) -> None:
        self.assertEqual(parse("Anna@Example.test"), Address("Anna", "example.test"))
        self.assertEqual(str(parse('"Anna B"@EXAMPLE.test')), '"Anna B"@example.test')

    def test_no_addresses(self) -> None:
        for text in (
            "",
            "anna",
            "@example.test",
            "anna@",
            ".anna@example.test",
            "anna.@example.test",
            "an..na@example.test",
            "an na@example.test",
            "anna@exa mple.test",
            "anna@b@example.test",
            '""@example.test',
            '"anna@example.test',
            'an"na"@example.test',
            "an\0na@example.test",
            '"an\r\nna"@example.test',
            "anna@example..test",
            "anna@.example.test",
            "anna@example.test.",
            "anna@-example.test",
            "anna@exam/ple.test",
            "anna@[192.0.2.256]",
            "anna@[192.0.2.1",
            "anna@[IPv6:192.0.2.1]",
            "anna@\u2028.test",
            "an\ud800na@example.test",
            "a" * 65 + "@example.test",
            "ö" * 33 + "@example.test",
            "anna@" + "a" * 64 + ".test",
            "anna@" + ".".join(["a" * 60] * 5),
            "anna@" + "ö" * 250,
        ):
            with self.assertRaises(InvalidAddress, msg=ascii(text)):
                parse(text)

    @settings(max_examples=50, deadline=None)
    @given(st.text(max_size=80), st.text(max_size=40))
    def test_any_text_is_an_address_or_refused(self, local: str, domain: str) -> None:
        try:
            address = parse(f"{local}@{domain}")
        except InvalidAddress:
            return
        # The canonical form is an address and its own canonical form.
        self.assertEqual(parse(address.canonical).canonical, address.canonical)
        self.assertEqual(parse(str(address)), address)

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1))
    def test_quoting_round_trip(self, text: str) -> None:
        try:
            address = parse(f"{quote(text)}@example.test")
        except InvalidAddress:
            self.assertGreater(len(text.encode()), 60)
            return
        self.assertEqual(fold(address.local), fold(text))


class ShownTests(SynchronousTestCase):
    def test_u_labels_for_people(self) -> None:
        self.assertEqual(shown("anna@xn--bcher-kva.example"), "anna@bücher.example")
        self.assertEqual(shown("xn--bcher-kva.example"), "bücher.example")
        self.assertEqual(shown("anna@[192.0.2.1]"), "anna@[192.0.2.1]")

    def test_domains(self) -> None:
        self.assertEqual(canonical_domain("BÜCHER.example"), "xn--bcher-kva.example")
