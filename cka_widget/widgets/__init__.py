"""The explorer and its views.

`explorer` joins the rooms by traits (`explorer_traits`), `explorer_views` says where widgets
stand, `presenter` draws a result into them. From below: `look`, `run`, `comparison`, `notebook`,
`elements`, `drilldown`.

Each room imports those before it, the engine and the result.
"""
