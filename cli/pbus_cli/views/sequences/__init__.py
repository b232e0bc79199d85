"""Sequence diagrams, as text, Mermaid and SVG."""
