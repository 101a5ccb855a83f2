"""How tasks are computed: executors, local workers, SLURM, and what the machine allows."""
