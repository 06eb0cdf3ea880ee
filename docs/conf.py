"""Sphinx's settings, and the directive that writes the settings reference."""

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path.insert(0, str(Path(__file__).parent.parent))

from docs.settings_reference import reference

project = "mailsrv"
copyright = "the authors of mailsrv"
html_theme = "alabaster"
exclude_patterns = ["_build"]
nitpicky = True


class SettingsReference(SphinxDirective):
    """``.. settings-reference::``: every key of the settings tree."""

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(reference(), allow_section_headings=True)


def setup(app: Sphinx) -> None:
    app.add_directive("settings-reference", SettingsReference)
