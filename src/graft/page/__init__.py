"""The page of a comparison: standings.json and items.parquet become one file that opens anywhere and asks nobody.

write(run)       page.html, report.md, results.csv, results.parquet
standings.py     reads what a comparison left; shape.py checks it as far as the page relies on it
items.py         which items fit on the page, which are samples
view.py maps.py  tables and heat maps as plain cells; words.py and costs.py: numbers as a person reads them
data.py          what the script draws from
told.py          sentences that page and report share
html.py          fills template/: HTML by jinja2, one style sheet, a script without libraries
markdown.py      report.md; table.py: results.csv and results.parquet
"""

from graft.page.writing import LIMIT, Written, write

__all__ = ["LIMIT", "Written", "write"]
