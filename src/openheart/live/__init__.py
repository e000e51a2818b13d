"""A recording as a program in JavaScript, written from the laws: what a page without a server runs."""
