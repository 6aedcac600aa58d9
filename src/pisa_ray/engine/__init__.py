"""What happens in one process: a model as flat vectors, shards on a worker, the consensus. No Ray here."""
