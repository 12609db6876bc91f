"""Versions on the disk: publish, resolve, promote; which servers use them; who changed what. Imports the root only."""
