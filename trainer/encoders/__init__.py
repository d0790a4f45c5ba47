"""Encoders that embed users and items, behind one protocol."""
