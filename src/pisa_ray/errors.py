"""What can go wrong, by whose fault it is."""


class PisaError(Exception):
    """Base of every error that pisa_ray raises on purpose; its text is one sentence for people."""


class ConfigError(PisaError, ValueError):
    """A setting, a file or a data set cannot be used. The text names the key, what was expected and the remedy."""


class NonFiniteError(PisaError):
    """Training produced a NaN or an infinity. The last good checkpoint is kept."""


class ExplodedError(NonFiniteError):
    """The loss has risen far above the first round's: sigma is too small."""


class WorkerDiedError(PisaError):
    """A process of the run is gone; the run can go on from its last checkpoint."""


class StatesLostError(WorkerDiedError):
    """Shards' states cannot be rebuilt from what is in memory; the whole run goes on from its last checkpoint."""


class RayLostError(PisaError):
    """Ray's own processes on this machine are gone; the run can go on from its last checkpoint in a new process."""


class StoppedWaitingError(PisaError):
    """The user asked to stop while the run waited for workers; its last checkpoint is kept."""
