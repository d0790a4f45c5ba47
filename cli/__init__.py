"""The one command, `turnpoint`."""
