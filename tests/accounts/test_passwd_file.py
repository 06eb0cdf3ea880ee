"""Dovecot's passwd-file: what is read of it, and what is refused."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.passwd_file import Imported, Wrong, read
from tests.accounts.test_schemes import HASHES

HASH = HASHES["SSHA"]


class ReadTests(SynchronousTestCase):
    def one(self, line: str, domain: str | None = "example.test") -> Imported | Wrong:
        (found,) = read(line.encode(), domain)
        return found

    def imported(self, line: str) -> Imported:
        found = self.one(line)
        assert isinstance(found, Imported), found
        return found

    def wrong(self, line: str, domain: str | None = "example.test") -> str:
        found = self.one(line, domain)
        assert isinstance(found, Wrong), found
        return found.problem

    def test_whole_line(self) -> None:
        line = f"Anna:{HASH}:5000:5000:Anna A.:/home/anna:/bin/false:userdb_x=y"
        self.assertEqual(
            self.imported(line), Imported(1, "anna@example.test", HASH, None)
        )

    def test_short_lines(self) -> None:
        for line in (f"anna:{HASH}", f"anna:{HASH}:", f"anna:{HASH}::::::"):
            self.assertEqual(self.imported(line).address, "anna@example.test")

    def test_own_domain(self) -> None:
        found = self.imported(f"anna@Büro.test:{HASH}")
        self.assertEqual(found.address, "anna@xn--bro-hoa.test")

    def test_bare_hash_is_one_of_crypt(self) -> None:
        bare = HASHES["SHA512-CRYPT"].partition("}")[2]
        self.assertEqual(
            self.imported(f"anna:{bare}:::").password_hash, "{CRYPT}" + bare
        )

    def test_comments_and_empty_lines_count(self) -> None:
        text = f"# users\r\n\r\n  \n #x\nanna:{HASH}:::\r\nben\n"
        first, second = read(text.encode(), "example.test")
        self.assertEqual((first.line, second.line), (5, 6))

    def test_quota(self) -> None:
        for rule, octets in (
            ("userdb_quota_rule=*:storage=5G", 5 * 1024**3),
            ("quota_rule=*:storage=100", 100 * 1024),
            ("userdb_quota_rule=*:bytes=100M", 100 * 1024**2),
            ("userdb_quota_rule=*:bytes=1000:messages=10", 1000),
            ("userdb_quota_rule=*:storage=0", None),
            ("userdb_quota_rule=Trash:storage=1G", None),
            ("userdb_quota_rule2=Trash:storage=+10%", None),
            ("quota_storage_size=2M", 2 * 1024**2),
            ("userdb_quota_storage_size=2000", 2000),
            ("userdb_quota_rule:protected=*:storage=5G", 5 * 1024**3),
            ("userdb_quota_rule=*:messages=1000", None),
            ("userdb_quota_rule=INBOX:ignore", None),
            ("userdb_quota_rule2=?:messages=9:storage=1M", 1024**2),
            ("", None),
        ):
            line = f"anna:{HASH}::::::userdb_a=b {rule} c=d"
            self.assertEqual(self.imported(line).quota_octets, octets, rule)

    def test_wrong_lines(self) -> None:
        for line, said in (
            ("anna::::::", "has no password"),
            ("anna", "has no password"),
            (f"anna:{HASH}::::::nopassword", "has no password"),
            (f"anna:{HASH}::::::nopassword=y", "has no password"),
            (f"anna:{HASH}::::::allow_nets=192.0.2.0/24", "allow_nets cannot be kept"),
            (f"anna:{HASH}::::::x=y nologin", "nologin cannot be kept"),
            (f"anna:{HASH}::::::nologin:protected", "nologin cannot be kept"),
            (f"anna:{HASH}::::::allow_nets:protected=::1", "allow_nets cannot be kept"),
            (f"anna:{HASH}::::::user=ben", "another name"),
            (f"anna:{HASH}::::::userdb_user=ben", "another name"),
            # Without a limit somebody could fill the disk who could not before.
            (f"anna:{HASH}::::::userdb_quota_rule=*:storage=10%", "is no quota"),
            (f"anna:{HASH}::::::userdb_quota_rule=*:storage=1.5G", "is no quota"),
            (f"anna:{HASH}::::::userdb_quota_rule=*:backend=4G", "is no quota"),
            (f"anna:{HASH}::::::quota_storage_size=10GB", "is no quota"),
            ("anna:{NTLM}0123456789ABCDEF", "{NTLM} is not one of ARGON2ID,"),
            ("anna:*:::", "{CRYPT} is followed by no such hash"),
            (f"a@b@c:{HASH}", "is no address"),
            (f"anna@:{HASH}", "is no address"),
            (HASH, "does not begin with a user name"),
            (f":{HASH}", "does not begin with a user name"),
        ):
            problem = self.wrong(line)
            self.assertIn(said, problem)
            for secret in (HASH, HASH[6:], "0123456789ABCDEF"):
                self.assertNotIn(secret, problem)

    def test_no_domain(self) -> None:
        self.assertIn("--domain", self.wrong(f"anna:{HASH}", None))

    def test_no_utf_8(self) -> None:
        (found,) = read(b"anna:{PLAIN}\xff", "example.test")
        self.assertEqual(found, Wrong(1, "is not in UTF-8"))

    def test_twice(self) -> None:
        text = f"anna:{HASH}\nben:{HASH}\nANNA@example.test:{HASH}\n"
        *_, last = read(text.encode(), "example.test")
        self.assertEqual(last, Wrong(3, "anna@example.test was in line 1 already"))

    def test_hash_is_not_shown(self) -> None:
        self.assertNotIn(HASH[6:], repr(self.imported(f"anna:{HASH}")))

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_octets_are_read(self, content: bytes) -> None:
        for found in read(content, "example.test"):
            self.assertGreater(found.line, 0)
