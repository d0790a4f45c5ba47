"""Client of the Turnpoint negative-sampling service."""
