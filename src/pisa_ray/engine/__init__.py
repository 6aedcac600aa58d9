"""The parts of a run that need no Ray: the model as a flat vector, the worker with its shards, the consensus."""
