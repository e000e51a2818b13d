"""A self-contained HTML document around fragments: one file, readable with no network and no script.

Nothing in a page runs and nothing is fetched: what it shows is escaped, and its policy forbids the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from openheart.i18n import language, message
from openheart.printers.css import style_tag
from openheart.spelling import harmless

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(title: str, sections: Iterable[str | tuple[str, str]], lang: str | None = None) -> str:
    """An HTML document of `sections`: fragments made with `styled=False`, or (heading, fragment) pairs.

    Headings and the title are escaped; fragments are taken as they are.
    """
    spoken = language(lang)
    body = "".join(_section(section) for section in sections)
    footer = f"<footer>{escape(message('page.made', spoken))}</footer>\n"
    heading = f"<h1>{escape(harmless(title))}</h1>\n"
    return document(title, style_tag("page", "fragment"), heading + body + footer, spoken)


def document(title: str, style: str, body: str, lang: str) -> str:
    """The document around a body, with the policy that every page has."""
    return (
        f'<!DOCTYPE html>\n<html lang="{lang}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(harmless(title))}</title>\n{style}\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def _section(section: str | tuple[str, str]) -> str:
    if isinstance(section, str):
        return section + "\n"
    heading, fragment = section
    return f"<h2>{escape(heading)}</h2>\n{fragment}\n"
