"""Accessibility by axe-core, which the JavaScript's development dependencies bring."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

AXE = Path(__file__).resolve().parents[2] / "js/node_modules/axe-core/axe.min.js"


def violations(page: Page, where: str) -> list[str]:
    """What axe finds inside the elements of a CSS selector, one line for each element."""
    if not page.evaluate("() => 'axe' in window"):
        # Notebook pages load RequireJS, which would take axe for a module of its own.
        source = AXE.read_text(encoding="utf-8")
        page.evaluate(f"() => {{ const define = undefined, module = undefined; {source} }}")
    found: list[str] = page.evaluate(
        """async where => (await axe.run(where, { resultTypes: ["violations"] })).violations
            .flatMap(({ id, nodes }) => nodes.map(node =>
                `${id}: ${node.target.join(" ")}: ${node.html.slice(0, 160)}: ` +
                node.any.concat(node.all, node.none).map(check => check.message).join("; ")))""",
        where,
    )
    return found
