"""What people look at after a run: tables, pictures, and result documents written from the data."""

from gptrec_rl.reporting.tables import Row, markdown_table, text_table

__all__ = ["Row", "markdown_table", "text_table"]
