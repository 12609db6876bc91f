"""What an email task is, which facts it states, and whether an answer holds. Imports adapters' root only."""
