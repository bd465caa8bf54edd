"""Handover: members offered to other guides, and what they answer. Begin with `handovers`."""
