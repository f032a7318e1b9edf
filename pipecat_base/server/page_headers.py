"""Security headers of the launcher's own pages."""

from __future__ import annotations


def page_headers(sources: str) -> dict[str, str]:
    """Headers of a page that loads only ``sources`` (CSP directives) and that no other origin may frame."""
    return {
        "content-security-policy": (
            f"default-src 'none'; {sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
