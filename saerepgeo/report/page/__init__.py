"""One self-contained page of what runs have found, made from their files."""

from typing import TYPE_CHECKING

from saerepgeo.lazy import export_names

if TYPE_CHECKING:
    from saerepgeo.report.page.after import page_after as page_after
    from saerepgeo.report.page.html import PAGE as PAGE
    from saerepgeo.report.page.html import write_page as write_page

export_names(__name__)
