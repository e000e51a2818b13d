"""Printers: walks over a formula and over its instance, in text, LaTeX, MathML, JSON and HTML."""
