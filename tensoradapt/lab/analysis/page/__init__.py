"""The page of a report: its parts, its style, and figures as SVG."""
