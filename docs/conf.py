"""Sphinx: the documentation of Plugkit. `nox -s docs` builds it; a warning is an error."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

project = "Plugkit"
author = "Plugkit contributors"
copyright = "Plugkit contributors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "plugkit_docs"]
napoleon_use_ivar = True  # the fields of a NamedTuple are documented as such already
exclude_patterns = ["_build", "_ext"]
html_theme = "furo"
html_title = "Plugkit"
html_show_sphinx = False

myst_enable_extensions = ["attrs_block", "colon_fence", "deflist", "linkify"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

default_role = "code"  # the docstrings are written for people who read code: `name` is code
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True

copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True
