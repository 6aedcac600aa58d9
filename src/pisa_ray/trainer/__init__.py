"""The trainer: prepares a job, runs its rounds, keeps the run directory."""
