"""Jobs on a SLURM cluster: submit, run, requeue, and how far they are."""
