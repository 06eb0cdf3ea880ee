"""Hashes that Dovecot 2.3's ``doveadm pw`` made, of the password of `PASSWORD`."""

from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.passwords import hash_password, needs_rehash, verify_password
from mailsrv.accounts.schemes import UnusableHash, parse, scheme
from mailsrv.settings import LoginSettings

CHEAP = LoginSettings(argon2_memory_kib=8, argon2_passes=1, argon2_lanes=1)
PASSWORD = "sécret pass"
# Long ones are in two pieces.
HASHES = {
    "SHA512-CRYPT": "{SHA512-CRYPT}$6$48fAwRvW9NOE1.f4$V74Ds5IUepr6D2ifmI3pa8cUWUhkPDD2"
    "JTQFtFFfZ4YWhFifnxovITag9qNLUn1TiqW.mTx3DQAoCCkpr2m.7.",
    "SHA256-CRYPT": "{SHA256-CRYPT}$5$j/JlwjFBOJTKAUsZ"
    "$MKZOhZR2O90Q8GqmC8nF3zARtY0ASCypMWgcL46mGfB",
    "MD5-CRYPT": "{MD5-CRYPT}$1$5cOo6ikw$kLTjrRVKbQ0olQleObMHX.",
    "BLF-CRYPT": "{BLF-CRYPT}"
    "$2y$05$F6He2zD2dxCYNGg2bP./KOECFNE2f7Xg7s/3LvDFQ2r3sdtRdK2YS",
    "CRYPT": "{CRYPT}$2y$05$MVUWNrx3TCF3MJENXKaPv.CWtwvwtP6UddeV2WkBgSCpuFltoZ3zG",
    "PBKDF2": "{PBKDF2}$1$7MRD4F4trjUSneBy$5000$"
    "d88e8c6385bce3e1097f2fa1721969b28d1e8a64",
    "SSHA512": "{SSHA512}f3Wg204bCuBBapeCNvjtaftabNXv1Klm1xNVRYcZlH4QIF+ADSfRINtj9tQo37"
    "XOGA6kKUJvNGSNAts6VJlWFiyYWLk=",
    "SSHA512.HEX": "{SSHA512.HEX}"
    "61ba7d9145c45c56ded2591feb9b518b65a466cca319644db1d4a28"
    "687a3782eb00c6850074f186c61f1db8f9ffd1ea00a3baad5c3ed9a261b9e30815387e98ec455134b",
    "SSHA512.B64": "{SSHA512.B64}Hk/g7VxoiXJenO/42B5hrXbWlXrg1Y8PYTH/efNaODoP90zjVV8npd"
    "iPZ4wqHgANZSgjDH0HKXOVas5mShOwdg5OR9Q=",
    "SSHA256": "{SSHA256}reA4RzTmugXnb62vco2ukMaFnxRUmpSfJP/9FGrrtRwgZ0Kv",
    "SSHA": "{SSHA}PAYxIEsEfWMR0F4C3tzfYn8bMDs7+aPL",
    "SSHA.HEX": "{SSHA.HEX}575f331432d77a878b86c41f7cdc2d9af7e31226368ef707",
    "PLAIN": "{PLAIN}sécret pass",
    "PLAIN.B64": "{PLAIN.B64}c8OpY3JldCBwYXNz",
}
# 64 MiB each: only one of them is worked.
ARGON2ID = (
    "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$/6qFy2L4s9GytyGJdyBLjg"
    "$PXTnZz7+o6AF7l9eXRF2uMF8pqTu5KDIxGhfdFxjyis"
)
# Of 80 octets: "abcdefgh" ten times.
OF_80 = "{BLF-CRYPT}$2y$05$pzDBP.TtAk/BMvkThgw6beLOsftMs1FS3eRrdCrf7AaGtRvvf6Xye"


def is_password(password_hash: str, password: str) -> bool:
    return verify_password(password_hash, password, CHEAP)


class SchemesTests(SynchronousTestCase):
    def test_right_password(self) -> None:
        for name, password_hash in [*HASHES.items(), ("ARGON2ID", ARGON2ID)]:
            self.assertTrue(is_password(password_hash, PASSWORD), name)

    def test_wrong_passwords(self) -> None:
        for name, password_hash in HASHES.items():
            for wrong in ("sécret", "Sécret pass", "", "x" * 5000):
                self.assertFalse(is_password(password_hash, wrong), (name, wrong[:20]))

    def test_scheme_is_read_in_any_case(self) -> None:
        self.assertTrue(is_password("{ssha.hex}" + HASHES["SSHA.HEX"][10:], PASSWORD))

    def test_accent_typed_decomposed(self) -> None:
        self.assertTrue(is_password(HASHES["BLF-CRYPT"], "se\u0301cret pass"))

    def test_accent_hashed_decomposed(self) -> None:
        self.assertTrue(is_password("{PLAIN}se\u0301same", "se\u0301same"))

    def test_bcrypt_knows_72_octets_of_a_password(self) -> None:
        self.assertTrue(is_password(OF_80, "abcdefgh" * 10))
        self.assertTrue(is_password(OF_80, "abcdefgh" * 9))
        self.assertFalse(is_password(OF_80, "abcdefgh" * 8 + "abcdefg"))

    def test_nul_is_no_error(self) -> None:
        for password_hash in HASHES.values():
            is_password(password_hash, "\0")

    def test_cheap_scheme_does_not_show_by_its_speed(self) -> None:
        settings = LoginSettings(argon2_memory_kib=16384, argon2_passes=2)
        begun = process_time()
        hash_password("secret", settings)
        own = process_time() - begun
        begun = process_time()
        verify_password("{PLAIN}secret", "wrong", settings)
        self.assertGreater(process_time() - begun, own / 2)

    def test_each_is_hashed_anew(self) -> None:
        for password_hash in HASHES.values():
            self.assertTrue(needs_rehash(password_hash, CHEAP))

    def test_names_for_the_admin(self) -> None:
        self.assertEqual(scheme(HASHES["SSHA512.HEX"]), "SSHA512")
        self.assertEqual(scheme("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA"), "ARGON2ID")


class UnusableTests(SynchronousTestCase):
    def unusable(self, password_hash: str) -> str:
        with self.assertRaises(UnusableHash, msg=password_hash) as caught:
            parse(password_hash)
        self.assertFalse(is_password(password_hash, "secret"))
        return str(caught.exception)

    def test_malformed(self) -> None:
        for wrong in (
            "{PLAIN}",
            "{CRYPT}secretsecret",
            "{CRYPT}",
            "{CRYPT}*",
            "{SHA512-CRYPT}$6$salt$tooshort",
            "{BLF-CRYPT}$2y$05$tooshort",
            "{PBKDF2}$1$salt$x$00",
            "{PBKDF2}$1$salt$1000$00",
            "{SSHA512}AAAA",
            "{SSHA512}no base64!",
            "{SSHA512.HEX}0",
            "{ARGON2ID}$argon2id$v=19$m=65536",
            "{PLAIN.HEX}zz",
            "{SSHA}\u00e4",
            "{CRAM-MD5}e02d374fde0dc75a17a557039a3a5338c7743304777dccd376f332bee68d2cf6",
            "{SSHA512",
            "{}",
            "secret",
        ):
            said = self.unusable(wrong)
            # Never what may be a password or its hash.
            if rest := wrong.partition("}")[2][1:]:
                self.assertNotIn(rest, said)
            self.assertNotIn("secret", said)

    def test_too_costly(self) -> None:
        for wrong in (
            "{SHA512-CRYPT}$6$rounds=500001$" + HASHES["SHA512-CRYPT"][17:],
            "{BLF-CRYPT}$2y$15$" + HASHES["BLF-CRYPT"][18:],
            "{PBKDF2}$1$salt$1000001$" + "00" * 20,
            ARGON2ID.replace("m=65536", "m=600000"),
        ):
            self.assertIn("costs too much", self.unusable(wrong))
