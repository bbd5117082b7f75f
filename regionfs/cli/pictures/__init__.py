"""Pictures of region maps as files: a page and an SVG document, each complete in itself.

Both hold the same data, style and script; the SVG also a drawing for viewers that run no scripts. Knows
what a page needs to say about a file, not where it comes from.
"""
