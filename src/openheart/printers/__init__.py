"""Printers: walks over a formula and over its instance, into text, LaTeX, MathML, JSON and HTML.

digits      how a number is printed, and what its digits say
intervals   arithmetic on printed digits that knows how sure it is
honesty     whether a printed line holds from its own digits: `=` or `≈`
glyphs      operators, precedence, Greek letters, LaTeX's commands: tables
notation    formula → boxes (rows, scripts, fractions, fences): what all formats share
text, latex, mathml     boxes → characters
parts       what an explanation says, before any format
explanation, layout     the terminal
html, page, css         fragments and documents
json        plain data
audit       audits, in all of them
"""
