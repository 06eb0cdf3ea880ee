"""Signatures, verified by dkimpy."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import dkim
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.trust.dkim import Signer
from mailsrv.trust.dkim_keys import Algorithm, KeyFolder, KeysRefused, State

NOW = 1_795_600_000.0
DOMAIN = "office.example"
HEADER = (
    b"Received: from x\r\n"
    b"From: Anna <anna@office.example>\r\n"
    b"To: ben@example.net\r\n"
    b"Subject: Lunch  at\r\n\tnoon\r\n"
    b"Date: Wed, 25 Nov 2026 09:46:40 +0000\r\n"
    b"List-Unsubscribe: <https://office.example/u/1>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
)
BODY = b"Dear Ben,  \r\n\r\nas always.\r\n\r\n"


class DkimCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.folder = KeyFolder(self.root)
        self.folder.make(DOMAIN, State.ACTIVE, NOW)
        self.signer = Signer(self.root, lambda: NOW)

    def verified(self, message: bytes) -> list[str]:
        """The algorithms of the good signatures."""
        good = []
        verifier = dkim.DKIM(message)
        for index in range(message.count(b"DKIM-Signature:")):
            try:
                if verifier.verify(idx=index, dnsfunc=self.txt):
                    good.append(verifier.signature_fields[b"a"].decode())
            except dkim.ValidationError:
                pass  # the body is another one
        return good

    def txt(self, name: bytes, timeout: int = 5) -> bytes | None:
        selector, _, domain = name.decode().rstrip(".").partition("._domainkey.")
        for key in self.folder.keys(domain):
            if key.selector == selector:
                return self.folder.record(domain, key).value.encode()
        return None

    def sign(self, header: bytes = HEADER, body: Iterable[bytes] = (BODY,)) -> bytes:
        return self.signer.sign(header, body)


BOTH = ["rsa-sha256", "ed25519-sha256"]


class SignerTests(DkimCase):
    def test_both_are_verified(self) -> None:
        fields = self.sign()
        self.assertEqual(self.verified(fields + HEADER + b"\r\n" + BODY), BOTH)
        self.assertNotIn(b"\n", fields.replace(b"\r\n", b""))
        self.assertLess(max(map(len, fields.split(b"\r\n"))), 79)

    def test_files_of_the_spool_have_other_line_ends(self) -> None:
        def lf(octets: bytes) -> bytes:
            return octets.replace(b"\r\n", b"\n")

        fields = self.sign(lf(HEADER), [lf(BODY)[:7], lf(BODY)[7:]])
        self.assertEqual(self.verified(fields + HEADER + b"\r\n" + BODY), BOTH)

    def test_changes_break_them(self) -> None:
        fields = self.sign()
        good = fields + HEADER + b"\r\n" + BODY
        for old, new in (
            (b"always", b"never"),
            (b"Lunch", b"Lynch"),
            (b"One-Click", b"No-Click"),
            (b"\r\n\r\nDear", b"\r\nFrom: eve@office.example\r\n\r\nDear"),
            (b"\r\nTo:", b"\r\nSubject: Money\r\nTo:"),
        ):
            changed = good.replace(old, new, 1)
            self.assertNotEqual(changed, good)
            self.assertEqual(self.verified(changed), [], new)
        # What is none of the author's may come on top of it.
        self.assertEqual(self.verified(b"Received: by y\r\n" + good), BOTH)
        listed = good.replace(b"\r\nTo:", b"\r\nReply-To: l@x.example\r\nTo:")
        self.assertEqual(self.verified(listed), BOTH)

    def test_one_body_with_many_headers(self) -> None:
        prepared = self.signer.prepare([BODY])
        for number in range(2):
            header = HEADER.replace(b"ben", b"ben%d" % number)
            fields = self.signer.sign(header, prepared)
            self.assertEqual(self.verified(fields + header + b"\r\n" + BODY), BOTH)

    def test_the_domain_of_from_or_one_above_it_signs(self) -> None:
        for author, signer in (
            (b"Anna@OFFICE.example", b"d=office.example;"),
            (b"postmaster@mail.office.example", b"d=office.example;"),
            (b"anna@else.example", b""),
            (b"anna@notoffice.example", b""),
            (b"anna@[192.0.2.1]", b""),
            (b"anna", b""),
        ):
            fields = self.sign(b"From: <" + author + b">\r\nSubject: x\r\n")
            self.assertIn(signer, fields)
            self.assertEqual(bool(fields), bool(signer), author)

    def test_unclear_authors_are_not_signed_for(self) -> None:
        self.assertEqual(self.sign(HEADER + b"From: eve@office.example\r\n"), b"")
        self.assertEqual(self.sign(b"Subject: x\r\n"), b"")

    def test_one_of_several_authors(self) -> None:
        others = b"From: " + b"x@else.example, " * 3
        self.assertTrue(self.sign(others + b"anna@office.example\r\n"))
        others = b"From: " + b"x@else.example, " * 10
        self.assertEqual(self.sign(others + b"anna@office.example\r\n"), b"")

    def test_many_fields(self) -> None:
        header = HEADER + b"To: x@example.net\r\n" * 100
        fields = self.sign(header)
        self.assertEqual(self.verified(fields + header + b"\r\n" + BODY), BOTH)
        self.assertEqual(self.sign(HEADER + b"To: x@example.net\r\n" * 5000), b"")

    def test_names_of_more_than_ascii(self) -> None:
        self.folder.make("xn--bcher-kva.example", State.ACTIVE, NOW)
        header = "From: <ä@bücher.example>\r\nSubject: ü\r\n".encode()
        fields = self.sign(header)
        self.assertIn(b"d=xn--bcher-kva.example;", fields)
        self.assertEqual(self.verified(fields + header + b"\r\n" + BODY), BOTH)

    def test_new_keys_sign_without_a_restart(self) -> None:
        self.sign()
        self.folder.make(DOMAIN, State.NEXT, NOW + 86400)
        self.assertIn(b"s=rsa-20261125;", self.sign())
        self.folder.switch(DOMAIN)
        fields = self.sign()
        self.assertIn(b"s=rsa-20261126;", fields)
        self.assertIn(b"s=ed25519-20261126;", fields)
        self.assertEqual(fields.count(b"DKIM-Signature"), 2)
        self.folder.remove(DOMAIN, None)
        self.assertEqual(self.sign(), b"")

    def test_broken_keys_leave_mail_unsigned_and_are_told_of(self) -> None:
        for name, content in (("rsa-20261125.pem", b"x"), ("keys.json", b"{}")):
            (self.root / DOMAIN / name).write_bytes(content)
            os.utime(self.root / DOMAIN / "keys.json", (1, len(name)))
            self.assertEqual(self.sign(), b"")
        self.assertEqual(len(self.flushLoggedErrors(ValueError, KeyError)), 2)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=200), st.binary(max_size=100))
    def test_any_octets_are_taken(self, header: bytes, body: bytes) -> None:
        self.sign(header, [body])
        self.sign(b"From: anna@office.example\r\n" + header, [body])
        self.sign(b"From: " + header + b"@office.example", [body])


class KeyFolderTests(DkimCase):
    def test_one_key_of_each_algorithm(self) -> None:
        keys = self.folder.keys(DOMAIN)
        self.assertEqual([key.algorithm for key in keys], list(Algorithm))
        self.assertEqual(keys[0].selector, "rsa-20261125")
        self.assertEqual(self.folder.domains(), [DOMAIN])

    def test_for_the_owner_alone(self) -> None:
        for path in [self.root / DOMAIN, *(self.root / DOMAIN).iterdir()]:
            mode = stat.S_IMODE(path.stat().st_mode)
            self.assertEqual(mode & 0o077, 0, path)

    def test_records(self) -> None:
        rsa, ed = (self.folder.record(DOMAIN, k) for k in self.folder.keys(DOMAIN))
        self.assertEqual(rsa.name, "rsa-20261125._domainkey.office.example")
        self.assertTrue(rsa.value.startswith("v=DKIM1; k=rsa; p=MII"))
        self.assertTrue(ed.value.startswith("v=DKIM1; k=ed25519; p="))
        strings = rsa.zone_line.split('"')[1::2]
        self.assertEqual("".join(strings), rsa.value)
        self.assertLessEqual(max(map(len, strings)), 255)
        self.assertEqual(
            ed.zone_line,
            f'ed25519-20261125._domainkey.office.example. IN TXT "{ed.value}"',
        )

    def test_rotation(self) -> None:
        def states() -> list[str]:
            return [str(key.state) for key in self.folder.keys(DOMAIN)]

        self.folder.make(DOMAIN, State.NEXT, NOW)
        self.assertEqual(states(), ["active", "active", "next", "next"])
        with self.assertRaises(KeysRefused):
            self.folder.make(DOMAIN, State.NEXT, NOW)
        self.folder.switch(DOMAIN)
        self.assertEqual(states(), ["retired", "retired", "active", "active"])
        with self.assertRaises(KeysRefused):
            self.folder.switch(DOMAIN)
        selectors = [key.selector for key in self.folder.keys(DOMAIN)]
        self.assertEqual(len(set(selectors)), 4)
        with self.assertRaises(KeysRefused):
            self.folder.remove(DOMAIN, selectors[2])  # it signs
        self.folder.remove(DOMAIN, selectors[0])
        self.assertEqual(states(), ["retired", "active", "active"])
        self.assertFalse((self.root / DOMAIN / f"{selectors[0]}.pem").exists())

    def test_senseless_changes(self) -> None:
        with self.assertRaises(KeysRefused):
            self.folder.make(DOMAIN, State.ACTIVE, NOW)
        with self.assertRaises(KeysRefused):
            self.folder.make("else.example", State.NEXT, NOW)
        with self.assertRaises(KeysRefused):
            self.folder.remove(DOMAIN, "other")
