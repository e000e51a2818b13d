"""A self-contained HTML document around fragments: one file, readable with no network and no script."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from openheart.i18n import language, message
from openheart.printers.css import style_tag

PAGE_CSS = """
html{color-scheme:light dark;background:#f2f4f7;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:62rem;padding:1.6rem 1rem 3rem;color:#1d2433;
 font:400 16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif}
h1{font-size:1.55rem;line-height:1.25;font-weight:650;margin:.2rem 0 1rem}
h2{font-size:1.08rem;font-weight:600;margin:2rem 0 .4rem}
.page-intro{color:#667085;margin:.1rem 0}footer{color:#667085;font-size:.86rem;margin:2.2rem 0 0}
.oh{margin:.8rem 0}
@media (prefers-color-scheme:dark){html{background:#0f1217}body{color:#e6e9f0}.page-intro,footer{color:#98a2b3}}
@media print{html{background:#fff}.oh{break-inside:avoid}}
"""


def page(title: str, sections: Iterable[str | tuple[str, str]], lang: str | None = None) -> str:
    """An HTML document of `sections`: fragments made with `styled=False`, or (heading, fragment) pairs.

    Headings and the title are escaped; fragments are taken as they are.
    """
    spoken = language(lang)
    body = "".join(_section(section) for section in sections)
    return (
        f'<!DOCTYPE html>\n<html lang="{spoken}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{PAGE_CSS}</style>\n{style_tag()}\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}"
        f"<footer>{escape(message('page.made', spoken))}</footer>\n</body>\n</html>\n"
    )


def _section(section: str | tuple[str, str]) -> str:
    if isinstance(section, str):
        return section + "\n"
    heading, fragment = section
    return f"<h2>{escape(heading)}</h2>\n{fragment}\n"
