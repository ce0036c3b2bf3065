"""The commands of ``m2``: one file per noun. They know the server through its client only."""
