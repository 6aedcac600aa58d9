"""Makes the report page: one self-contained HTML file about one run, or several beside each other."""

from pisa_ray.cli.report.page import write_report

__all__ = ["write_report"]
