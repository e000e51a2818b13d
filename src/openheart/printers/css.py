"""The looks of the HTML fragments: one sheet, scoped to `.oh`, light and dark, from a phone's width up."""

from __future__ import annotations

LIGHT = """
  --oh-ink: #1d2433; --oh-faint: #667085; --oh-line: #e4e7ec; --oh-paper: #ffffff; --oh-wash: #f7f8fa;
  --oh-address: #0b6e8a; --oh-positive: #3b76c4; --oh-negative: #b0548f; --oh-good: #1a7f47; --oh-good-wash: #e8f5ee;
  --oh-bad: #b42318; --oh-bad-wash: #fdeceb; --oh-warn: #96620a; --oh-warn-wash: #fdf3df;
"""
DARK = """
  --oh-ink: #e6e9f0; --oh-faint: #98a2b3; --oh-line: #313846; --oh-paper: #171b23; --oh-wash: #1f2530;
  --oh-address: #6cc6de; --oh-positive: #6b9fe0; --oh-negative: #d283b6; --oh-good: #6cce98; --oh-good-wash: #16301f;
  --oh-bad: #ff8f85; --oh-bad-wash: #3a1a18; --oh-warn: #e6b45c; --oh-warn-wash: #342812;
"""

CSS = (
    ".oh{" + LIGHT + "}"
    "@media (prefers-color-scheme: dark){.oh{" + DARK + "}}"
    # A notebook's own theme wins over the machine's.
    '[data-jp-theme-light="true"] .oh,[data-theme="light"] .oh,body.vscode-light .oh{' + LIGHT + "}"
    '[data-jp-theme-light="false"] .oh,[data-theme="dark"] .oh,body.vscode-dark .oh{' + DARK + "}"
    """
.oh{color:var(--oh-ink);background:var(--oh-paper);border:1px solid var(--oh-line);border-radius:12px;
 box-sizing:border-box;max-width:60rem;padding:1.1rem 1.35rem 1.2rem;margin:.6rem 0;overflow:hidden;
 font:400 15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;
 font-variant-numeric:tabular-nums}
.oh *{box-sizing:border-box}
.oh .oh{margin:.8rem 0 0;padding:.85rem 1rem 1rem}
.oh-head{display:flex;flex-wrap:wrap;align-items:baseline;gap:.3rem .8rem;margin:0}
.oh-head h3{font:600 1.22rem/1.3 ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;margin:0;
 overflow-wrap:anywhere;color:var(--oh-ink)}
.oh-head h3 .oh-eq{color:var(--oh-faint);font-weight:400;padding:0 .35em}
.oh-origin{color:var(--oh-faint);font-size:.86rem;margin:.15rem 0 0;overflow-wrap:anywhere}
.oh-verdict{display:inline-block;border-radius:99px;padding:.08rem .65rem;font-size:.82rem;font-weight:600;
 white-space:nowrap;color:var(--oh-faint);background:var(--oh-wash)}
.oh-good{color:var(--oh-good);background:var(--oh-good-wash)}
.oh-bad{color:var(--oh-bad);background:var(--oh-bad-wash)}
.oh-warn{color:var(--oh-warn);background:var(--oh-warn-wash)}
.oh-part{display:grid;grid-template-columns:8.2rem minmax(0,1fr);gap:0 1rem;margin:.95rem 0 0;padding:0;border:0}
.oh-part>h4{font:500 .82rem/1.9 inherit;font-family:inherit;font-size:.82rem;line-height:1.9;font-weight:500;
 color:var(--oh-faint);margin:0;padding:0;letter-spacing:.01em}
.oh-part>div{min-width:0}
.oh-address,.oh .oh-address{color:var(--oh-address);
 font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.92em;overflow-wrap:anywhere}
.oh-line{margin:0 0 .45rem;line-height:1.9;overflow-x:auto;overflow-y:hidden;padding:.1rem 0}
.oh-line:last-child{margin-bottom:0}
.oh-line.oh-sum{padding-left:1.6rem;text-indent:-1.6rem}
.oh-line math{font-size:1.08em;text-indent:0;vertical-align:middle}
.oh-line.oh-named{padding-left:1.6rem}
.oh-slot{cursor:default}
.oh-slot:hover{color:var(--oh-address)}
.oh mtext.oh-address{font-size:.86em}
.oh-args{display:flex;flex-wrap:wrap;gap:.1rem 1.3rem;margin:.35rem 0 0;padding:0;font-size:.9rem;color:var(--oh-faint)}
.oh-args>span{white-space:nowrap;max-width:100%;overflow-x:auto}
.oh table.oh-terms{border-collapse:collapse;width:100%;margin:0;font-size:.92rem;border:0;background:none;
 display:table;table-layout:auto;color:inherit}
.oh table.oh-terms tr,.oh table.oh-terms td{background:none;border:0;padding:.16rem .7rem .16rem 0;text-align:left;
 vertical-align:middle;color:inherit}
.oh table.oh-terms td.oh-number{text-align:right;white-space:nowrap;font-weight:600}
.oh table.oh-terms td.oh-share{text-align:right;white-space:nowrap;color:var(--oh-faint)}
.oh table.oh-terms td.oh-bar{width:34%;padding-right:0}
.oh-bar i{display:block;height:.62rem;border-radius:3px;background:var(--oh-positive);min-width:2px}
.oh-bar i.oh-minus{background:var(--oh-negative)}
.oh-more{color:var(--oh-faint);font-size:.88rem;margin:.25rem 0 0}
.oh-sources{display:grid;grid-template-columns:repeat(auto-fill,minmax(12.5rem,1fr));gap:.12rem 1.2rem;
 font-size:.9rem;margin:0;padding:0;list-style:none}
.oh-sources li{margin:0;padding:0;display:flex;justify-content:space-between;gap:.6rem;border-bottom:1px dotted
 var(--oh-line)}
.oh-check{display:flex;flex-wrap:wrap;gap:.1rem 1.5rem;margin:0;font-size:.92rem}
.oh-check div{display:flex;gap:.45rem}
.oh-check dt{color:var(--oh-faint);font-weight:400;margin:0}.oh-check dd{margin:0}
.oh-why{color:var(--oh-faint);font-size:.9rem;margin:0 0 .15rem}
.oh-notes p{margin:0 0 .3rem;font-size:.93rem}.oh-notes p:last-child{margin:0}
.oh details{margin:.95rem 0 0}.oh summary{cursor:pointer;color:var(--oh-faint);font-size:.88rem}
@media (max-width:560px){.oh{padding:.9rem .95rem 1rem;border-radius:10px}
 .oh-part{grid-template-columns:minmax(0,1fr);margin-top:.8rem}.oh-part>h4{line-height:1.5}
 .oh table.oh-terms tr{display:grid;grid-template-columns:auto auto 1fr;gap:0 .5rem;padding:.2rem 0}
 .oh table.oh-terms td{padding:0}.oh table.oh-terms td.oh-name{grid-column:1/-1}
 .oh table.oh-terms td.oh-bar{width:auto;align-self:center}}
.oh-audit table{border-collapse:collapse;width:100%;font-size:.9rem;margin:.6rem 0 0;color:inherit;border:0}
.oh-audit .oh-scroll{overflow-x:auto}
.oh-audit th{font-weight:500;color:var(--oh-faint);text-align:right;padding:.25rem .6rem;border:0;
 border-bottom:1px solid var(--oh-line);background:none;white-space:nowrap}
.oh-audit td{text-align:right;padding:.2rem .6rem;border:0;background:none;white-space:nowrap;color:inherit}
.oh-audit th:first-child,.oh-audit td:first-child{text-align:left;padding-left:0}
.oh-audit tr{background:none!important}
.oh-audit tfoot td{border-top:1px solid var(--oh-line);font-weight:600}
.oh-audit td.oh-none{color:var(--oh-faint)}.oh-audit td.oh-bad{background:none;font-weight:600}
.oh-audit td.oh-warn{background:none;font-weight:600}
"""
)
"""A fragment carries it in a `<style>` of its own; a page of several carries it once."""


def style_tag() -> str:
    """The sheet as a `<style>` element."""
    return f"<style>{CSS}</style>"
