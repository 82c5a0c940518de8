"""The course as a website: `make site` calls Sphinx with this, and `course_site` prepares what it reads."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

# Where the course can be cloned from, such as https://example.org/somebody/the-course. With it, pages have
# links to Binder, to Colab and to the repository; with the address of a JupyterHub, to that, too.
course_repository = os.environ.get("COURSE_REPOSITORY", "").rstrip("/")
course_jupyterhub = os.environ.get("COURSE_JUPYTERHUB", "").rstrip("/")

project = "Weight initialization"
author = ""
language = "en"
extensions = ["myst_nb", "course_site"]
html_title = "Weight initialization"
html_theme = "sphinx_book_theme"
html_static_path = ["_static", "../build/mathjax"]
html_extra_path = ["../build/pictures"]
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_context = {"default_mode": "auto"}
html_copy_source = False
html_sidebars = {"**": ["search-button-field.html", "sbt-sidebar-nav.html"]}  # a logo is in no landmark
html_use_index = False
html_show_copyright = False
html_show_search_summary = False  # it fetches pages, which a browser refuses from a disk
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "secondary_sidebar_items": {"claims": [], "card": [], "**": ["page-toc"]},
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 1,
    "repository_branch": os.environ.get("COURSE_BRANCH", "main"),
    "path_to_docs": "notebooks",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
if course_repository:
    html_theme_options |= {
        "repository_url": course_repository,
        "use_repository_button": True,
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "jupyterhub_url": course_jupyterhub,
            "colab_url": "https://colab.research.google.com" if "//github.com/" in course_repository else "",
        },
    }

nb_execution_mode = "off"
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_dmath_double_inline = True
myst_heading_anchors = 3
myst_heading_slug_func = "course_site.slug"
mathjax_path = "tex-svg-full.js"  # one file with its fonts, from the package that `make site` unpacks
mathjax3_config = {
    "options": {"enableMenu": False, "enableAssistiveMml": True}
}  # no stop of Tab at each formula
