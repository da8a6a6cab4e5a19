"""How all views look: numbers and names as text, colours, style sheets and scripts.

`format` writes numbers, `style` holds the palette and `explorer.css`, `assets` finds what is
built of `js/`.

Imports nothing of the package.
"""
