"""A self-contained HTML document around fragments: one file, readable with no network and no script."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from openheart.i18n import language, message
from openheart.printers.css import style_tag


def page(title: str, sections: Iterable[str | tuple[str, str]], lang: str | None = None) -> str:
    """An HTML document of `sections`: fragments made with `styled=False`, or (heading, fragment) pairs.

    Headings and the title are escaped; fragments are taken as they are.
    """
    spoken = language(lang)
    body = "".join(_section(section) for section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="{spoken}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n{style_tag('page', 'fragment')}\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}"
        f"<footer>{escape(message('page.made', spoken))}</footer>\n</body>\n</html>\n"
    )


def _section(section: str | tuple[str, str]) -> str:
    if isinstance(section, str):
        return section + "\n"
    heading, fragment = section
    return f"<h2>{escape(heading)}</h2>\n{fragment}\n"
