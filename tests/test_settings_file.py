"""mailsrv.toml: every error at once, in words that help."""

from pathlib import Path
from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.settings import MIB, Service, Settings
from mailsrv.settings_file import Problem, SettingsError, load

LEAST = 'version = 1\nhostname = "mail.example.test"\ndata = "data"\n'


class Files(SynchronousTestCase):
    def written(self, text: str) -> Path:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        file = folder / "mailsrv.toml"
        file.write_text(text)
        return file

    def read(self, text: str) -> Settings:
        return load(self.written(text))

    def problems(self, text: str) -> list[Problem]:
        error = self.assertRaises(SettingsError, load, self.written(text))
        return list(error.problems)


class ReadingTests(Files):
    def test_what_is_left_out_has_its_default(self) -> None:
        settings = self.read(LEAST)
        self.assertEqual(settings.smtp.max_message_octets, 50 * MIB)
        self.assertEqual(settings.listen, [])
        self.assertIsNone(settings.user)

    def test_tables_lists_and_optional_keys(self) -> None:
        settings = self.read(
            'user = "mail"\n' + LEAST + '[[listen]]\nservice="imap"\nendpoint="tcp:1"\n'
            '[[listen]]\nservice="smtp"\nendpoint="tcp:2"\n'
            "[imap]\nkeep_alive_s = 60\n"
        )
        self.assertEqual([one.service for one in settings.listen], ["imap", "smtp"])
        self.assertEqual(settings.user, "mail")
        self.assertIsInstance(settings.imap.keep_alive_s, float)

    def test_relative_paths_are_of_the_file_s_folder(self) -> None:
        file = self.written(
            LEAST + '[[tls.certificate]]\nchain = "c.pem"\nkey = "/k.pem"\n'
        )
        settings = load(file)
        self.assertEqual(settings.data, file.parent / "data")
        (certificate,) = settings.tls.certificate
        self.assertEqual(certificate.chain, file.parent / "c.pem")
        self.assertEqual(certificate.key, Path("/k.pem"))


class ProblemTests(Files):
    def test_every_error_is_told_at_once(self) -> None:
        found = self.problems(
            'version = 1\nhostname = 7\n[smtp]\nmax_recipient = 100\nmax_errors = "x"\n'
            '[log]\nformat = "xml"\n[[listen]]\nservice = "imap"\n'
        )
        self.assertEqual(
            {problem.key for problem in found},
            {
                "data",
                "hostname",
                "listen[1].endpoint",
                "log.format",
                "smtp.max_errors",
                "smtp.max_recipient",
            },
        )

    def test_an_unknown_key_names_the_nearest(self) -> None:
        (problem,) = self.problems(LEAST + "[smtp]\nmax_recipient = 100\n")
        self.assertIn("max_recipients", problem.allowed)

    def test_a_key_like_no_other_names_all(self) -> None:
        (problem,) = self.problems(LEAST + "[log]\nzzz = 1\n")
        self.assertIn("format, level", problem.allowed)

    def test_allowed_values_are_named(self) -> None:
        (problem,) = self.problems(LEAST + '[smtp]\nover_quota = "no"\n')
        self.assertEqual(problem.allowed, '"reject", "defer"')
        (problem,) = self.problems(LEAST + "[smtp]\nmax_recipients = 1\n")
        self.assertEqual(problem.allowed, "a whole number from 100")
        (problem,) = self.problems(LEAST + "[[listen]]\nservice='x'\nendpoint='tcp:1'")
        for service in get_args(Service):
            self.assertIn(service, problem.allowed)

    def test_types_are_not_guessed(self) -> None:
        for line in (
            "smtp.max_recipients = true",
            'smtp.max_recipients = "200"',
            "smtp.max_recipients = 200.5",
            "smtp.command_timeout_s = nan",
            "smtp.command_timeout_s = inf",
            "smtp.command_timeout_s = 0",
            "smtp.max_recipients = 99999999999999999999",
            "tls.clear_text_passwords_on_loopback = 1",
            "smtp = 3",
            'listen = "tcp:25"',
            "listen = [3]",
            'user = ""',
            'user = "a\\nb"',
            "user = ['a']",
        ):
            self.assertEqual(len(self.problems(LEAST + line)), 1, line)

    def test_a_later_version_is_not_read(self) -> None:
        (problem,) = self.problems(LEAST.replace("version = 1", "version = 2"))
        self.assertEqual(problem.key, "version")

    def test_what_is_no_toml(self) -> None:
        (problem,) = self.problems("version = 1\n= 2\n")
        self.assertIn("line 2", problem.wrong)
        file = self.written("")
        file.write_bytes(b"\xff")
        self.assertRaises(SettingsError, load, file)

    def test_no_file(self) -> None:
        error = self.assertRaises(SettingsError, load, Path("/nowhere/x.toml"))
        self.assertEqual(str(error), "/nowhere/x.toml: No such file or directory")

    def test_a_line_has_file_key_wrong_and_allowed(self) -> None:
        file = self.written(LEAST + '[log]\nformat = "xml"\n')
        error = self.assertRaises(SettingsError, load, file)
        self.assertEqual(
            str(error), f'{file}: log.format: is "xml"; allowed: "text", "json"'
        )
