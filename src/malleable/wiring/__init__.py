"""The composition root: everything meets here and nowhere else."""
