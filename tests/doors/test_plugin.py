"""Finding plugins, and what is told of those that cannot be used."""

import importlib
import sys
from pathlib import Path
from textwrap import dedent

from click.testing import CliRunner
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

import mailsrv.plugins
from mailsrv.cli.main import main
from mailsrv.doors.plugin import Plugin, Plugins, find, problems
from mailsrv.interfaces import IConnectionPolicy, IMessagePolicy, IPluginMaker
from mailsrv.settings import Listener, PluginSettings, Settings
from tests.inline_threads import InlineThreads

GOOD = """
    from zope.interface import implementer
    from mailsrv.doors.plugin import Plugin
    from mailsrv.doors.values import ACCEPT
    from mailsrv.interfaces import IConnectionPolicy, IMessagePolicy

    @implementer(IConnectionPolicy, IMessagePolicy)
    class Good:
        '''Lets all in.

        And more.
        '''
        def __init__(self, options, services):
            self.services = services
            if "bad" in options:
                raise ValueError("bad: must not be there")
            if "worse" in options:
                options["nowhere"]
            if "worst" in options:
                raise SystemExit("worst")
            if "lines" in options:
                raise ValueError("lines: one\\nand another")
            if "silent" in options:
                raise ValueError

        def connection(self, connection):
            return ACCEPT

        message = connection

    good = Plugin("acme-good", Good)
"""


class InstalledCase(SynchronousTestCase):
    """Has a further folder of plugin modules."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        path = mailsrv.plugins.__path__
        path.append(str(self.folder))
        self.addCleanup(path.remove, str(self.folder))
        self.addCleanup(importlib.invalidate_caches)
        self.reactor = InlineThreads().clock

    def install(self, name: str, source: str) -> None:
        (self.folder / f"{name}.py").write_text(dedent(source))
        self.addCleanup(sys.modules.pop, f"mailsrv.plugins.{name}", None)
        importlib.invalidate_caches()

    def settings(self, *plugins: PluginSettings, service: str = "imap") -> Settings:
        return Settings(
            version=1,
            hostname="mail.example.test",
            data=self.folder / "data",
            listen=[Listener(service=service, endpoint="tcp:143")],
            plugin=list(plugins),
        )

    def problem(self, plugin: PluginSettings, service: str = "imap") -> str:
        (problem,) = problems(self.settings(plugin, service=service), Clock())
        return str(problem)


class FindTests(InstalledCase):
    def test_what_is_installed(self) -> None:
        self.install("acme_good", GOOD)
        found = find()
        self.assertLessEqual({"acme-good", "networks"}, set(found.makers))
        self.assertTrue(IPluginMaker.providedBy(found.makers["acme-good"]))
        self.assertEqual(found.makers["acme-good"].summary, "Lets all in.")
        self.assertEqual(found.broken, {})

    def test_a_broken_module_keeps_no_other_away(self) -> None:
        self.install("acme_good", GOOD)
        self.install("acme_bad", "import nowhere_at_all\n")
        found = find()
        self.assertIn("acme-good", found.makers)
        (wrong,) = found.broken.items()
        self.assertEqual(wrong[0], "mailsrv.plugins.acme_bad")
        self.assertIn("nowhere_at_all", wrong[1])

    def test_a_module_that_ends_the_program(self) -> None:
        self.install("acme_bad", "raise SystemExit('wrong version')\n")
        told = find().broken["mailsrv.plugins.acme_bad"]
        self.assertEqual(told, "SystemExit: wrong version")

    def test_what_two_modules_have_is_one(self) -> None:
        self.install("acme_good", GOOD)
        self.install("acme_more", "from mailsrv.plugins.acme_good import good\n")
        self.assertEqual(find().twice, set())

    def test_nothing_is_written(self) -> None:
        # Once root is dropped it could not be, and the log would tell at each start.
        self.install("acme_good", GOOD)
        find()
        files = {file.name for file in self.folder.iterdir()} - {"__pycache__"}
        self.assertEqual(files, {"acme_good.py"})

    def test_names(self) -> None:
        for name in ("", "No", "a b", "-a", "a_b", "ü"):
            self.assertRaises(ValueError, Plugin, name, object)


class ProblemsTests(InstalledCase):
    def setUp(self) -> None:
        super().setUp()
        self.install("acme_good", GOOD)

    def test_none(self) -> None:
        good = PluginSettings(name="acme-good")
        self.assertEqual(problems(self.settings(good), Clock()), [])
        self.assertEqual(problems(self.settings(), Clock()), [])

    def test_an_unknown_name(self) -> None:
        told = self.problem(PluginSettings(name="acme"))
        self.assertIn('plugin[1].name: "acme" is no installed plugin', told)
        self.assertIn("acme-good", told.partition("allowed: ")[2])

    def test_a_name_that_a_broken_module_may_have(self) -> None:
        self.install("acme_bad", "raise RuntimeError('of 2019')\n")
        told = self.problem(PluginSettings(name="acme-bad"))
        self.assertIn("mailsrv.plugins.acme_bad cannot be imported", told)
        self.assertIn("RuntimeError: of 2019", told)

    def test_options_that_it_refuses(self) -> None:
        told = self.problem(PluginSettings(name="acme-good", options={"bad": 1}))
        self.assertEqual(
            told,
            "plugin[1].options: bad: must not be there;"
            " allowed: what acme-good documents",
        )

    def test_one_that_cannot_be_made(self) -> None:
        told = self.problem(PluginSettings(name="acme-good", options={"worse": 1}))
        self.assertIn("plugin[1]: acme-good cannot be made: KeyError", told)

    def test_one_that_ends_the_program(self) -> None:
        told = self.problem(PluginSettings(name="acme-good", options={"worst": 1}))
        self.assertIn("acme-good cannot be made: SystemExit: worst", told)

    def test_what_it_says_is_one_line(self) -> None:
        for option, text in (("lines", "lines: one and another"), ("silent", "Value")):
            plugin = PluginSettings(name="acme-good", options={option: 1})
            self.assertIn(f"plugin[1].options: {text}", self.problem(plugin))

    def test_one_without_a_door(self) -> None:
        for made, kind in (
            ("None", "NoneType"),
            ("Good(options, services)", "Good"),
            ("implementer(IMessagePolicy)(Good)", "type"),
        ):
            source = GOOD.replace("@implementer(IConnectionPolicy, IMessagePolicy)", "")
            source = source.replace(
                'Plugin("acme-good", Good)',
                f'Plugin("acme-none", lambda options, services: {made})',
            )
            self.install("acme_none", source)
            told = self.problem(PluginSettings(name="acme-none"))
            self.assertIn(f"acme-none makes a {kind}, which provides no door", told)
            sys.modules.pop("mailsrv.plugins.acme_none")

    def test_one_that_lacks_a_method(self) -> None:
        for wrong in ("massage = connection", "message = lambda self: ACCEPT"):
            source = GOOD.replace("message = connection", wrong)
            self.install("acme_half", source.replace("acme-good", "acme-half"))
            told = self.problem(PluginSettings(name="acme-half"))
            self.assertIn("plugin[1]: acme-half is no whole IMessagePolicy", told)
            self.assertNotIn("\n", told)
            sys.modules.pop("mailsrv.plugins.acme_half")

    def test_the_same_twice(self) -> None:
        twice = [PluginSettings(name="acme-good")] * 2
        (problem,) = problems(self.settings(*twice), Clock())
        self.assertEqual(problem.key, "plugin[2].name")

    def test_a_name_that_two_have(self) -> None:
        self.install("acme_other", GOOD.replace("acme-good", "networks"))
        told = self.problem(PluginSettings(name="networks"))
        self.assertIn('"networks" is the name of two installed plugins', told)

    def test_a_service_that_is_none(self) -> None:
        told = self.problem(PluginSettings(name="acme-good"), service="acme-good")
        self.assertIn("plugin[1].name: acme-good serves no port", told)


class PluginsTests(InstalledCase):
    def test_providers_come_in_the_order_of_the_settings(self) -> None:
        self.install("acme_good", GOOD)
        self.install("acme_other", GOOD.replace("acme-good", "acme-other"))
        names = ["acme-other", "networks", "acme-good"]
        settings = self.settings(*(PluginSettings(name=name) for name in names))
        plugins = Plugins(settings, self.reactor)
        found = plugins.providers(IConnectionPolicy)
        self.assertEqual([guest.name for guest in found], names)
        found = plugins.providers(IMessagePolicy)
        self.assertEqual([guest.name for guest in found], ["acme-other", "acme-good"])

    def test_what_they_are_given(self) -> None:
        self.install("acme_good", GOOD)
        settings = self.settings(PluginSettings(name="acme-good"))
        (guest,) = Plugins(settings, self.reactor).providers(IMessagePolicy)
        services = guest.provider.services  # type: ignore[attr-defined]
        self.assertEqual(services.state.stat().st_mode & 0o777, 0o700)
        self.assertEqual(services.state.parent, self.folder / "data" / "plugins")
        self.assertIsInstance(services.log, Logger)
        self.assertIn("acme-good", services.log.namespace)
        called: list[int] = []
        services.clock.callLater(1.0, called.append, 1)
        self.reactor.advance(1.0)
        self.assertEqual((called, services.clock.seconds()), ([1], 1.0))
        self.assertFalse(hasattr(services.clock, "callFromThread"))


class CommandTests(InstalledCase):
    def test_the_list(self) -> None:
        self.install("acme_good", GOOD)
        result = CliRunner().invoke(main, ["plugins"])
        self.assertEqual(result.exit_code, 0)
        self.assertRegex(result.output, r"(?m)^acme-good +Lets all in\.$")
        self.assertRegex(result.output, r"(?m)^networks +Refuses")

    def test_broken_modules(self) -> None:
        self.install("acme_bad", "import nowhere_at_all\n")
        result = CliRunner().invoke(main, ["plugins"])
        self.assertEqual(result.exit_code, 1)
        self.assertIn("mailsrv.plugins.acme_bad cannot be imported", result.output)

    def test_check_config_tells(self) -> None:
        self.folder.joinpath("data").mkdir()
        file = self.folder / "mailsrv.toml"
        file.write_text(
            'version = 1\nhostname = "a"\ndata = "data"\n'
            '[[listen]]\nservice = "imap"\nendpoint = "tcp:143"\n'
            '[[plugin]]\nname = "network"\n[[plugin]]\nname = "networks"\n'
            'options = { deny = ["x"] }\n'
        )
        result = CliRunner().invoke(main, ["check-config", str(file)])
        self.assertEqual(result.exit_code, 1)
        first, second = result.output.splitlines()
        self.assertIn(f'{file}: plugin[1].name: "network" is no installed', first)
        self.assertIn(f"{file}: plugin[2].options: deny: 'x' does not", second)
