"""Records to pictures and one HTML file. Needs the extra ``report`` (jinja2, matplotlib)."""
